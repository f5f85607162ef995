# Deaths: all processes that are registered under one key of an Elixir Registry end at once. `elixir deaths.exs`; then each line of its input is a round,
# "N REGISTERED", answered by "took NS", from the order to die until the last of them is gone from the registry, or only gone if none was registered.

defmodule Mortal do
  def start(registered, parent) do
    if registered, do: {:ok, _} = Registry.register(Deaths, "mortals", nil)
    send(parent, :ready)
    receive(do: (:die -> :ok))
  end
end

defmodule Deaths.Main do
  def main do
    {:ok, _} = Registry.start_link(keys: :duplicate, name: Deaths, partitions: System.schedulers_online())
    IO.puts("ready")
    serve()
  end

  defp serve do
    case IO.gets("") do
      line when is_binary(line) ->
        [n, registered] = line |> String.split() |> Enum.map(&String.to_integer/1)
        IO.puts("took #{round(n, registered == 1)}")
        serve()

      _ ->
        System.halt(0)
    end
  end

  defp round(n, registered) do
    me = self()
    mortals = for _ <- 1..n, do: spawn(fn -> Mortal.start(registered, me) end)
    for _ <- 1..n, do: receive(do: (:ready -> :ok))
    if registered, do: ^n = Registry.count(Deaths)
    start = System.monotonic_time(:nanosecond)
    for pid <- mortals, do: send(pid, :die)
    for pid <- mortals, do: gone(pid)
    if registered, do: empty()
    System.monotonic_time(:nanosecond) - start
  end

  defp gone(pid), do: if(Process.alive?(pid), do: (Process.sleep(1); gone(pid)), else: :ok)

  defp empty, do: if(Registry.count(Deaths) > 0, do: (Process.sleep(1); empty()), else: :ok)
end

Deaths.Main.main()
