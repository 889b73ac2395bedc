-- A DIRECT thread is closed while one of the two has blocked the other. Kept on the thread itself, which a send reads anyway:
-- whom people block is not looked up there.
ALTER TABLE threads ADD COLUMN blocked_at timestamptz;
COMMENT ON COLUMN threads.blocked_at IS 'DIRECT: since when one of the two has blocked the other (user_settings.blocked_users)';

CREATE FUNCTION close_direct_threads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_one uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    v_before uuid[] := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE OLD.blocked_users END;
    v_after uuid[] := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE NEW.blocked_users END;
BEGIN
    -- Who changes both sides of a pair at once, or makes its thread meanwhile, waits here (engine.create_thread takes the
    -- same lock); the statement below sees what they committed.
    PERFORM pg_advisory_xact_lock(hashtextextended('direct ' || p.direct_key, 0))
    FROM (SELECT DISTINCT least(v_one, w.id)::text || ':' || greatest(v_one, w.id)::text AS direct_key
          FROM ((SELECT unnest(v_before) EXCEPT SELECT unnest(v_after)) UNION ALL
                (SELECT unnest(v_after) EXCEPT SELECT unnest(v_before))) w (id) ORDER BY 1) p;
    UPDATE threads t SET blocked_at = CASE WHEN p.is_apart THEN coalesce(t.blocked_at, now()) END
    FROM (SELECT least(v_one, w.id)::text || ':' || greatest(v_one, w.id)::text AS direct_key,
                 w.id = ANY (v_after)
                     OR EXISTS (SELECT FROM user_settings s WHERE s.user_id = w.id AND v_one = ANY (s.blocked_users)) AS is_apart
          FROM ((SELECT unnest(v_before) EXCEPT SELECT unnest(v_after)) UNION ALL
                (SELECT unnest(v_after) EXCEPT SELECT unnest(v_before))) w (id)) p
    WHERE t.direct_key = p.direct_key AND (t.blocked_at IS NOT NULL) <> p.is_apart;
    RETURN NULL;
END
$$;
CREATE TRIGGER user_settings_blocks AFTER INSERT OR DELETE OR UPDATE OF blocked_users ON user_settings
    FOR EACH ROW EXECUTE FUNCTION close_direct_threads();
-- Each of them may be a lock of the trigger's, and a thread to be closed.
ALTER TABLE user_settings ADD CONSTRAINT user_settings_blocked_most CHECK (cardinality(blocked_users) <= 1000);
UPDATE threads t SET blocked_at = now() FROM user_settings s CROSS JOIN unnest(s.blocked_users) w (id)
WHERE t.direct_key = least(s.user_id, w.id)::text || ':' || greatest(s.user_id, w.id)::text;
