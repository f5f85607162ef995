# Pg: two nodes of the Erlang distribution, as Phoenix.PubSub uses them: on each a Registry with the subscribers and an adapter in a group of :pg; a broadcast
# sends to the adapter of each other node, wanted there or not, and that one dispatches. `elixir --name A pg.exs send B` and `elixir --name B pg.exs receive TOPICS`.
# The sender takes a line for each measure, see serve/2. At most a window of notes is under way; the receiver tells after each 256 what it has got.

defmodule Adapter do
  def join(server) do
    {:ok, _} = :pg.start_link(:pubsub)
    :ok = :pg.join(:pubsub, :adapters, server)
  end

  # What a node does with what comes from others.
  def loop do
    receive do
      {:forward, topic, message} ->
        Registry.dispatch(Local, topic, fn entries -> for {pid, _} <- entries, do: send(pid, message) end)

      {:sync, from} ->
        send(from, :synced)
    end

    loop()
  end

  def broadcast(topic, message) do
    forward = {:forward, topic, message}
    for pid <- :pg.get_members(:pubsub, :adapters), node(pid) != node(), do: send(pid, forward)
  end
end

defmodule Receiver do
  def main(topics) do
    {:ok, _} = Registry.start_link(keys: :duplicate, name: Local, partitions: System.schedulers_online())
    me = self()

    spawn_link(fn ->
      for number <- 1..topics, do: {:ok, _} = Registry.register(Local, "room:#{number - 1}", nil)
      send(me, :registered)
      loop(nil, 0, 0, 0, [])
    end)

    receive(do: (:registered -> :ok))
    adapter = spawn_link(&Adapter.loop/0)
    Adapter.join(adapter)
    IO.puts("ready")
    IO.gets("")
    System.halt(0)
  end

  # `times` is a list of latencies, or nil while none are wanted.
  defp loop(times, got, next, disordered, _) do
    receive do
      {:note, from, number, at, _payload} ->
        got = got + 1
        if rem(got, 256) == 0, do: send(from, {:got, got, disordered})
        {next, disordered} = if number >= next, do: {number + 1, disordered}, else: {next, disordered + 1}
        times = if times && at > 0, do: [System.os_time(:nanosecond) - at | times], else: times
        loop(times, got, next, disordered, [])

      {:ask, from} ->
        send(from, {:got, got, disordered})
        loop(times, got, next, disordered, [])

      {:time, from} ->
        send(from, :timing)
        loop([], got, next, disordered, [])

      {:times, from} ->
        send(from, {:times, times})
        loop(nil, got, next, disordered, [])
    end
  end
end

defmodule Sender do
  def main(other) do
    {:ok, _} = Registry.start_link(keys: :duplicate, name: Local, partitions: System.schedulers_online())
    adapter = spawn_link(&Adapter.loop/0)
    true = Node.connect(other)
    Adapter.join(adapter)
    wait_for_adapter()
    [{listener, _}] = :erpc.call(other, Registry, :lookup, [Local, "room:0"])
    IO.puts("ready")
    serve(listener, %{next: 0, got: 0})
  end

  defp wait_for_adapter do
    if length(:pg.get_members(:pubsub, :adapters)) < 2, do: (Process.sleep(5); wait_for_adapter())
  end

  defp serve(listener, state) do
    case IO.gets("") do
      line when is_binary(line) ->
        [order | numbers] = String.split(line)
        serve(listener, apply(__MODULE__, String.to_existing_atom(order), [listener, state | Enum.map(numbers, &String.to_integer/1)]))

      _ ->
        System.halt(0)
    end
  end

  # So many notes of 100 bytes, one each millisecond; answers with their latencies in ns.
  def pace(listener, state, topics, notes) do
    send(listener, {:time, self()})
    receive(do: (:timing -> :ok))
    topics = topics(topics)
    state = paced(state, topics, :binary.copy(<<7>>, 100), notes, System.monotonic_time(:nanosecond))
    state = settle(listener, state)
    send(listener, {:times, self()})
    times = receive(do: ({:times, times} -> times))
    IO.puts("paced #{Enum.join(times, ",")}")
    state
  end

  defp paced(state, _, _, 0, _), do: state

  defp paced(state, topics, payload, more, due) do
    # A timer is as fine as a millisecond: a note is stamped when it is sent, so that a late timer does not count.
    early = div(due - System.monotonic_time(:nanosecond), 1_000_000)
    if early > 0, do: Process.sleep(early)
    note(state.next, System.os_time(:nanosecond), topics, payload)
    paced(%{state | next: state.next + 1}, topics, payload, more - 1, due + 1_000_000)
  end

  # Notes of so many bytes as fast as the window allows; says when the first `warm` ms are over, and what was received in the `time` ms after them.
  def full(listener, state, topics, bytes, ahead, warm, time) do
    now = System.monotonic_time(:millisecond)
    {topics, payload} = {topics(topics), :binary.copy(<<7>>, bytes)}
    state = rush(state, topics, payload, ahead, now + warm)
    IO.puts("warm")
    {got, start} = {state.got, System.monotonic_time(:nanosecond)}
    state = rush(state, topics, payload, ahead, now + warm + time)
    took = System.monotonic_time(:nanosecond) - start
    IO.puts("rushed #{state.got - got} #{took}")
    state = settle(listener, state)
    IO.puts("settled #{state.next - state.got}")
    state
  end

  defp rush(state, topics, payload, ahead, until) do
    state = if rem(state.next, 64) == 0, do: heard(state), else: state
    state = if state.next - state.got >= ahead, do: wait(state, ahead), else: state

    if rem(state.next, 64) == 0 and System.monotonic_time(:millisecond) >= until do
      state
    else
      note(state.next, 0, topics, payload)
      rush(%{state | next: state.next + 1}, topics, payload, ahead, until)
    end
  end

  defp heard(state) do
    receive do
      {:got, got, 0} -> heard(%{state | got: max(got, state.got)})
    after
      0 -> state
    end
  end

  defp wait(state, ahead) do
    receive do
      {:got, got, 0} ->
        state = %{state | got: max(got, state.got)}
        if state.next - state.got >= ahead, do: wait(state, ahead), else: state
    end
  end

  # Until all has come: the distribution loses nothing.
  defp settle(listener, state) do
    send(listener, {:ask, self()})
    state = receive(do: ({:got, got, 0} -> %{state | got: max(got, state.got)}))
    if state.got < state.next, do: (Process.sleep(1); settle(listener, state)), else: state
  end

  # Bursts of notes for topics that nobody wants; answers with the time that the caller took, in ns.
  def unwanted(_listener, state, bursts, burst) do
    topics = topics("unwanted:", 1_000)
    other = Enum.find(:pg.get_members(:pubsub, :adapters), &(node(&1) != node()))

    took =
      for _ <- 1..bursts do
        notes = for number <- 0..(burst - 1), do: {elem(topics, rem(number, 1_000)), :binary.copy(<<7>>, 100)}
        start = System.monotonic_time(:nanosecond)
        for {topic, payload} <- notes, do: Adapter.broadcast(topic, {:note, self(), 0, 0, payload})
        took = System.monotonic_time(:nanosecond) - start
        send(other, {:sync, self()})
        receive(do: (:synced -> took))
      end

    IO.puts("unwanted #{Enum.sum(took)}")
    state
  end

  defp note(number, at, topics, payload) do
    Adapter.broadcast(elem(topics, rem(number, tuple_size(topics))), {:note, self(), number, at, payload})
  end

  defp topics(prefix \\ "room:", count), do: List.to_tuple(for number <- 0..(count - 1), do: "#{prefix}#{number}")
end

case System.argv() do
  ["send", other] -> Sender.main(String.to_atom(other))
  ["receive", topics] -> Receiver.main(String.to_integer(topics))
end
