-- The groups of a stream. KEYS: stream, meta. Answers length, last id, oldest kept id or '', then a list for each group.
-- The lag is Redis' own where our fetches alone have moved the group: what it counts for others is lost at a restart from an append-only file.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local info = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, last = info['first-entry'], info['last-entry']
local out = { info['length'], last and last[1] or '', first and first[1] or '' }
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(flat)
  local last = group['last-delivered-id']
  local known = redis.call('HGET', KEYS[2], counted(group['name'])) == last
  out[#out + 1] = { group['name'], last, group['pending'], group['consumers'], known and group['lag'] or '' }
end
return out
