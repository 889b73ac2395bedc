-- Houses are written by the application itself; the count of members follows the rows.

CREATE FUNCTION count_house_members() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE houses SET member_count = member_count - 1 WHERE id = OLD.house_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE houses SET member_count = member_count + 1 WHERE id = NEW.house_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER house_members_count AFTER INSERT OR DELETE OR UPDATE OF house_id ON house_members
    FOR EACH ROW EXECUTE FUNCTION count_house_members();
UPDATE houses h SET member_count = (SELECT count(*) FROM house_members m WHERE m.house_id = h.id);

GRANT INSERT, UPDATE ON houses TO haus_app;
GRANT INSERT, UPDATE, DELETE ON house_members TO haus_app;
