//! The root key: bound to its database, asked for where it cannot be made, and the same judgement at every door.

use std::process::{Command, Output};

use sqlx::PgPool;

use crate::rig::Folder;
use crate::support::Database;

pub const FIRST: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
pub const SECOND: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

/// The program with the settings of one test.
pub struct Program {
    folder: Folder,
    database_url: String,
}

impl Program {
    pub fn on(database: &Database) -> Self {
        let database_url = format!("postgres://haus_test@127.0.0.1:{}/{}", database.port, database.name);
        Self { folder: Folder::new("keys").unwrap(), database_url }
    }

    pub fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haus"));
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("DATABASE_URL", &self.database_url).env("HAUS_DATA_DIR", self.folder.path().join("data"));
        command.env("HAUS_LISTEN", "127.0.0.1:0").envs(settings.iter().copied());
        command
    }

    pub fn run(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        self.command(arguments, settings).output().unwrap()
    }
}

#[track_caller]
pub fn refused(output: &Output, code: i32, name: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(name), "{name} is not named: {text}");
    assert!(output.stdout.is_empty());
}

#[track_caller]
pub fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn bound_keys(owner: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM root_keys").fetch_one(owner).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_refuses_a_key_that_is_not_the_databases() {
    let database = Database::new().await;
    let program = Program::on(&database);
    let out = program.folder.path().join("crowd.jsonl");
    let crowd = ["seed", "--people", "2", "--threads", "1", "--out", out.to_str().unwrap()];
    let token = ["token", "--email", "crowd0@load.example"];
    let commands: [&[&str]; 4] = [&["serve"], &["seed"], &crowd, &token];

    for arguments in commands {
        refused(&program.run(arguments, &[]), 2, "HAUS_SECRET_KEY");
        for nonsense in ["", "banana", "c2hvcnQ=", &FIRST[1..]] {
            refused(&program.run(arguments, &[("HAUS_SECRET_KEY", nonsense)]), 2, "HAUS_SECRET_KEY");
        }
    }
    assert!(!program.folder.path().join("data").exists(), "a key was made that no other node would have");
    assert_eq!(bound_keys(&database.owner).await, 0);

    done(&program.run(&crowd, &[("HAUS_SECRET_KEY", FIRST)]));
    done(&program.run(&token, &[("HAUS_SECRET_KEY", FIRST)]));
    let padded = format!(" {FIRST}\n");
    done(&program.run(&token, &[("HAUS_SECRET_KEY", &padded)]));
    for arguments in commands {
        refused(&program.run(arguments, &[("HAUS_SECRET_KEY", SECOND)]), 2, "HAUS_SECRET_KEY");
    }
    let examined = program.run(&["doctor"], &[("HAUS_SECRET_KEY", SECOND)]);
    assert_eq!(examined.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&examined.stdout).contains("BAD  secret"));
    done(&program.run(&["doctor"], &[("HAUS_SECRET_KEY", FIRST)]));
    assert_eq!(bound_keys(&database.owner).await, 1);

    // A database older than the check value: what is sealed there tells.
    database.run("DELETE FROM root_keys".to_owned()).await;
    refused(&program.run(&token, &[("HAUS_SECRET_KEY", SECOND)]), 2, "HAUS_SECRET_KEY");
    done(&program.run(&token, &[("HAUS_SECRET_KEY", FIRST)]));
    // A way back and forth in the schema does not forget it.
    database.migrate(haus::store::migrate::Target::Version(0)).await;
    database.migrate(haus::store::migrate::Target::Head).await;
    refused(&program.run(&["seed"], &[("HAUS_SECRET_KEY", SECOND)]), 2, "HAUS_SECRET_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_is_another_deployment() {
    let database = Database::new().await;
    let program = Program::on(&database);
    done(&program.run(&["seed"], &[("HAUS_SECRET_KEY", FIRST)]));
    let id = "SELECT id FROM deployment";
    let first: uuid::Uuid = sqlx::query_scalar(id).fetch_one(&database.owner).await.unwrap();
    done(&program.run(&["seed"], &[("HAUS_SECRET_KEY", FIRST)]));
    assert_eq!(first, sqlx::query_scalar::<_, uuid::Uuid>(id).fetch_one(&database.owner).await.unwrap());
    // As after a dump and a restore beside the first one.
    database.run("UPDATE deployment SET database_oid = 1".to_owned()).await;
    done(&program.run(&["seed"], &[("HAUS_SECRET_KEY", FIRST)]));
    assert_ne!(first, sqlx::query_scalar::<_, uuid::Uuid>(id).fetch_one(&database.owner).await.unwrap());
}
