//! Holds a database function in the middle of its calls, so that a test decides what happens meanwhile. Real Postgres: the
//! function is renamed and called by one that waits for advisory locks before and after it.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::Database;

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Before = 0,
    After = 1,
}

/// A function with gates.
pub struct Gate {
    connection: PgConnection,
}

impl Gate {
    /// `signature`: the arguments as declared, named; `shape`: what it returns.
    pub async fn put(database: &Database, name: &str, arguments: &[(&str, &str)], shape: &str) -> Self {
        let declared: Vec<String> = arguments.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        let passed: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
        let (declared, passed) = (declared.join(", "), passed.join(", "));
        database
            .run(format!(
                "ALTER FUNCTION engine.{name} RENAME TO {name}_ungated;
                 CREATE SEQUENCE engine.gate_calls;
                 GRANT USAGE ON SEQUENCE engine.gate_calls TO haus_app;
                 CREATE FUNCTION engine.{name}({declared}) RETURNS SETOF {shape} LANGUAGE plpgsql VOLATILE AS $$
                 #variable_conflict use_column
                 DECLARE v_call bigint := nextval('engine.gate_calls');
                 BEGIN
                     PERFORM pg_advisory_xact_lock_shared(v_call * 2);
                     RETURN QUERY SELECT * FROM engine.{name}_ungated({passed});
                     PERFORM pg_advisory_xact_lock_shared(v_call * 2 + 1);
                 END $$;
                 GRANT EXECUTE ON FUNCTION engine.{name} TO haus_app;"
            ))
            .await;
        let connection = PgConnection::connect_with(&database.owner.connect_options()).await.unwrap();
        Self { connection }
    }

    /// Closes the gate of the call that comes as number `ahead` from now (1: the next). Returns what opens it.
    pub async fn close(&mut self, ahead: i64, at: At) -> i64 {
        let last: Option<i64> =
            sqlx::query_scalar("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM engine.gate_calls")
                .fetch_one(&mut self.connection)
                .await
                .unwrap();
        let key = (last.unwrap_or(0) + ahead) * 2 + at as i64;
        self.lock("pg_advisory_lock", key).await;
        key
    }

    /// Waits until a call stands at the gate.
    pub async fn held(&mut self, key: i64) {
        let deadline = std::time::Instant::now() + crate::socket::PATIENCE;
        loop {
            let waits: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1::bigint
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            )
            .bind(key)
            .fetch_one(&mut self.connection)
            .await
            .unwrap();
            if waits {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "nothing came to the gate");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    pub async fn open(&mut self, key: i64) {
        self.lock("pg_advisory_unlock", key).await;
    }

    async fn lock(&mut self, function: &str, key: i64) {
        let statement = format!("SELECT {function}({key})");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut self.connection).await.unwrap();
    }
}
