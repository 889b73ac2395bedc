-- Planted: every row of a batch takes a number, refused ones too.
SELECT pg_temp.swap($$FROM judged j WHERE j.verdict = 'ok') j$$, $$FROM judged j) j$$);
SELECT pg_temp.swap(
    $$j.last_ms)) ms (ms)
$$,
    $$j.last_ms)) ms (ms) WHERE j.verdict = 'ok'
$$);
