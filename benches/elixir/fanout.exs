# Fanout: an Elixir Registry with N subscribers, as Phoenix.PubSub uses it on one node: one entry for each, and a dispatch that sends to all of them.
# `elixir fanout.exs N`; then each line of its input is a turn, "SINGLES BURST BURSTS", answered by "took PUBLISHED,.. LAST,.. BURSTS_NS FAULTS" in ns.
# A subscriber does what those of the other peers do: it checks the number of each event. Only the last of a burst is counted, by an atomic.

defmodule Subscriber do
  def start(publisher, gate) do
    {:ok, _} = Registry.register(Fanout, "room:lobby", nil)
    send(publisher, :ready)
    loop(0, publisher, gate)
  end

  defp loop(next, publisher, gate) do
    receive do
      {:news, number, last, _payload} ->
        if number != next, do: :atomics.add(gate, 2, 1)

        if last and :atomics.sub_get(gate, 1, 1) == 0 do
          send(publisher, {:done, System.monotonic_time(:nanosecond)})
        end

        loop(number + 1, publisher, gate)
    end
  end
end

defmodule Publisher do
  def main([n]) do
    n = String.to_integer(n)
    {:ok, _} = Registry.start_link(keys: :duplicate, name: Fanout, partitions: System.schedulers_online())
    # How many still have to handle the last event, and how many events were lost, doubled or out of order.
    gate = :atomics.new(2, signed: true)
    me = self()
    for _ <- 1..n, do: spawn_link(fn -> Subscriber.start(me, gate) end)
    for _ <- 1..n, do: receive(do: (:ready -> :ok))
    IO.puts("ready")
    serve(n, gate, 0)
  end

  defp serve(n, gate, next) do
    case IO.gets("") do
      line when is_binary(line) ->
        [singles, burst, bursts] = line |> String.split() |> Enum.map(&String.to_integer/1)
        {next, published, last} = singles(singles, n, gate, next, [], [])
        {next, took} = bursts(bursts, burst, n, gate, next, 0)
        IO.puts("took #{Enum.join(published, ",")}; #{Enum.join(last, ",")}; #{took}; #{:atomics.get(gate, 2)}")
        serve(n, gate, next)

      _ ->
        System.halt(0)
    end
  end

  defp singles(0, _, _, next, published, last), do: {next, Enum.reverse(published), Enum.reverse(last)}

  defp singles(more, n, gate, next, published, last) do
    # As with the other peers: those that run elsewhere are asleep by then.
    if System.schedulers_online() > 1, do: spin(System.monotonic_time(:nanosecond) + 150_000)
    :atomics.put(gate, 1, n)
    payload = payload(next)
    start = System.monotonic_time(:nanosecond)
    publish({:news, next, true, payload})
    returned = System.monotonic_time(:nanosecond)
    done = receive(do: ({:done, at} -> at))
    singles(more - 1, n, gate, next + 1, [returned - start | published], [done - start | last])
  end

  defp bursts(0, _, _, _, next, took), do: {next, took}

  defp bursts(more, burst, n, gate, next, took) do
    :atomics.put(gate, 1, n)
    start = System.monotonic_time(:nanosecond)
    burst(next, next + burst - 1)
    done = receive(do: ({:done, at} -> at))
    bursts(more - 1, burst, n, gate, next + burst, took + done - start)
  end

  defp burst(number, last) when number > last, do: :ok

  defp burst(number, last) do
    publish({:news, number, number == last, payload(number)})
    burst(number + 1, last)
  end

  defp publish(event) do
    Registry.dispatch(Fanout, "room:lobby", fn entries ->
      for {pid, _} <- entries, do: send(pid, event)
    end)
  end

  # 100 bytes; a binary of that size is shared, not copied.
  defp payload(number), do: <<number::little-64, 7::size(92)-unit(8)>>

  defp spin(until), do: if(System.monotonic_time(:nanosecond) < until, do: spin(until), else: :ok)
end

Publisher.main(System.argv())
