-- Create a group. KEYS: stream, then what a group of that name may have left. ARGV: group, where it begins ('$' or an id).
-- Ids have 64 bits, which a Lua number has not: compared as decimal texts.
local function before(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end

local from = ARGV[2]
if from ~= '$' then
  -- A group cannot begin ahead of the log.
  local last = '0-0'
  if redis.call('EXISTS', KEYS[1]) == 1 then last = named(redis.call('XINFO', 'STREAM', KEYS[1]))['last-generated-id'] end
  local ms, seq = string.match(from, '^(%d+)-(%d+)$')
  local last_ms, last_seq = string.match(last, '^(%d+)-(%d+)$')
  if before(last_ms, ms) or (last_ms == ms and before(last_seq, seq)) then from = last end
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], from, 'MKSTREAM')
if made.err then
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 0 end
  return made
end
redis.call('DEL', unpack(KEYS, 2))
return 1
