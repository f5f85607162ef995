-- State. KEYS: stream, meta.
return state(KEYS[1], KEYS[2])
