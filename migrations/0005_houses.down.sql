REVOKE INSERT, UPDATE, DELETE ON house_members FROM haus_app;
REVOKE INSERT, UPDATE ON houses FROM haus_app;
DROP TRIGGER house_members_count ON house_members;
DROP FUNCTION count_house_members();
