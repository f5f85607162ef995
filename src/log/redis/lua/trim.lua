-- Trim. KEYS: stream, meta. ARGV: 'len'|'before'|'age', its argument.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return trim(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
