-- Accounts, profiles, sessions, tokens, revocation, idempotency keys.
-- Owned by the role that migrates; the application logs in as a member of haus_app, which owns nothing.

CREATE TYPE user_role AS ENUM ('APPLICANT', 'MEMBER', 'LEADER', 'ADMIN');
CREATE TYPE user_status AS ENUM ('PENDING', 'ACTIVE', 'SUSPENDED', 'BANNED');

CREATE FUNCTION set_updated_at() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION set_updated_at() IS 'The one trigger function behind every updated_at column';

CREATE TABLE users (
    id              uuid PRIMARY KEY,
    email           bytea NOT NULL,
    email_bidx      bytea NOT NULL,
    email_verified  timestamptz,
    hashed_password text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    last_login_at   timestamptz,
    CONSTRAINT users_email_bidx_length CHECK (octet_length(email_bidx) = 32)
);
-- The unique rule of the schema's users.email: the address itself is sealed, equality is asked of the blind index.
CREATE UNIQUE INDEX idx_users_email ON users (email_bidx);
COMMENT ON COLUMN users.email IS 'Sealed (AEAD, bound to users|email|id)';
COMMENT ON COLUMN users.email_bidx IS 'HMAC-SHA-256 of the trimmed, lower-cased address';

CREATE TABLE profiles (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    display_name    text NOT NULL,
    pronouns        text,
    bio             text,
    avatar          text,
    cover_image     text,
    ballroom_name   text,
    role            user_role NOT NULL DEFAULT 'APPLICANT',
    status          user_status NOT NULL DEFAULT 'PENDING',
    suspended_until timestamptz,
    house_id        uuid,
    social_links    jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT profiles_suspended_until_with_status CHECK (suspended_until IS NULL OR status = 'SUSPENDED')
);
CREATE INDEX idx_profiles_user_id ON profiles (user_id);
CREATE INDEX idx_profiles_role ON profiles (role);
CREATE INDEX idx_profiles_house_id ON profiles (house_id);

CREATE TABLE user_settings (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL UNIQUE REFERENCES profiles (id) ON DELETE CASCADE,
    notifications   jsonb NOT NULL DEFAULT '{"email": true, "push": true, "sms": false}',
    privacy         jsonb NOT NULL DEFAULT '{"profile": "public", "posts": "public", "messages": "friends"}',
    theme           text NOT NULL DEFAULT 'system',
    language        text NOT NULL DEFAULT 'en',
    timezone        text NOT NULL DEFAULT 'UTC',
    content_filters jsonb,
    blocked_users   uuid[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN user_settings.user_id IS 'The profile (the schema names the column so)';

CREATE TABLE sessions (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    profile_id   uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    token        text NOT NULL UNIQUE,
    kind         text NOT NULL DEFAULT 'web',
    device       jsonb,
    user_agent   bytea,
    ip           bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
CREATE INDEX idx_sessions_profile_live ON sessions (profile_id, last_used_at DESC) WHERE revoked_at IS NULL;
CREATE INDEX idx_sessions_user_id ON sessions (user_id);
COMMENT ON COLUMN sessions.token IS 'SHA-256 (hex) of the refresh token that heads this session''s chain';

CREATE TABLE refresh_tokens (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token      text NOT NULL UNIQUE,
    session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    family_id  uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz,
    CONSTRAINT refresh_tokens_token_is_sha256 CHECK (token ~ '^[0-9a-f]{64}$')
);
CREATE INDEX idx_refresh_tokens_session_id ON refresh_tokens (session_id);
CREATE INDEX idx_refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX idx_refresh_tokens_expires_at ON refresh_tokens (expires_at);

CREATE TABLE ws_tickets (
    hash              bytea PRIMARY KEY,
    session_id        uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    profile_id        uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    access_expires_at timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL
);
CREATE INDEX idx_ws_tickets_expires_at ON ws_tickets (expires_at);
CREATE INDEX idx_ws_tickets_session_id ON ws_tickets (session_id);
CREATE INDEX idx_ws_tickets_profile_id ON ws_tickets (profile_id);
COMMENT ON TABLE ws_tickets IS 'Single-use websocket tickets; redeemed by DELETE ... RETURNING';

CREATE TABLE revocations (
    id         uuid PRIMARY KEY,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    profile_id uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    session_id uuid,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_revocations_xid ON revocations (xid);
CREATE INDEX idx_revocations_at ON revocations (at);
CREATE INDEX idx_revocations_profile_id ON revocations (profile_id);
COMMENT ON TABLE revocations IS 'What nodes poll: a session ended, or (session_id null) the standing of a profile changed';

CREATE TABLE idempotency_keys (
    profile_id uuid NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
    route      text NOT NULL,
    key        text NOT NULL CHECK (length(key) BETWEEN 1 AND 64),
    body_hash  bytea NOT NULL,
    status     smallint,
    response   jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (profile_id, route, key)
);
CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);
COMMENT ON COLUMN idempotency_keys.status IS 'Null while the first request is at work';

CREATE TRIGGER users_set_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER profiles_set_updated_at BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER user_settings_set_updated_at BEFORE UPDATE ON user_settings
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

GRANT SELECT, INSERT, UPDATE ON users, profiles, user_settings TO haus_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions, refresh_tokens, idempotency_keys TO haus_app;
GRANT SELECT, INSERT, DELETE ON ws_tickets, revocations TO haus_app;
