-- The consumers of a group. KEYS: stream. ARGV: group.
need_group(KEYS[1], ARGV[1])
local out = {}
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = named(flat)
  out[#out + 1] = { consumer['name'], consumer['pending'], consumer['idle'] }
end
return out
