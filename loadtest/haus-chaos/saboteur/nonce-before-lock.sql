-- Planted: nonces are looked up before the lock, and only those found then count as used. The unique index would refuse
-- the second one; a plain one keeps the look-up fast.
DROP INDEX thread_updates_nonce;
CREATE INDEX thread_updates_nonce ON thread_updates (thread_id, actor_id, nonce) WHERE nonce IS NOT NULL;
SELECT pg_temp.swap(
    $$    v_now timestamptz;
BEGIN
$$,
    $$    v_now timestamptz;
    v_seen uuid[];
BEGIN
    v_seen := ARRAY(
        SELECT u.nonce FROM unnest(p_thread, p_actor, p_nonce) x (thread, actor, nonce)
        JOIN thread_updates u ON u.thread_id = x.thread AND u.actor_id = x.actor AND u.nonce = x.nonce);
    PERFORM pg_sleep(0.005);
$$);
SELECT pg_temp.swap(
    $$AND u.nonce = i.nonce$$,
    $$AND u.nonce = i.nonce AND u.nonce = ANY (v_seen)$$);
