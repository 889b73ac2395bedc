-- Planted: `seq` comes from a sequence of the thread, taken before its row is locked. Position 1 is the join.
CREATE FUNCTION engine.number_thread() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $number$
BEGIN
    EXECUTE format('CREATE SEQUENCE engine.%I START WITH 2', NEW.id);
    EXECUTE format('GRANT USAGE ON SEQUENCE engine.%I TO haus_engine', NEW.id);
    RETURN NULL;
END $number$;
CREATE TRIGGER number_thread AFTER INSERT ON threads FOR EACH ROW EXECUTE FUNCTION engine.number_thread();
SELECT pg_temp.swap(
    $$    v_now timestamptz;
BEGIN
$$,
    $$    v_now timestamptz;
    v_seqs bigint[];
BEGIN
    v_seqs := ARRAY(
        SELECT nextval(format('engine.%I', x.thread)::regclass) FROM unnest(p_thread) WITH ORDINALITY x (thread, ord) ORDER BY x.ord);
$$);
SELECT pg_temp.swap($$j.t_seq + k.k AS new_seq$$, $$v_seqs[j.ord] AS new_seq$$);
SELECT pg_temp.swap($$SET seq = c.seq,$$, $$SET seq = greatest(t.seq, c.seq),$$);
