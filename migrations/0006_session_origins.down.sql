ALTER TABLE sessions DROP COLUMN origin;
