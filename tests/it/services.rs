//! Private services of a test, from the rig that the chaos driver uses too.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig::{self, Folder};

/// Roles as `haus migrate` makes them, and the login of the application.
const ROLES: [&str; 3] = [
    "CREATE ROLE haus_app NOLOGIN",
    "CREATE ROLE haus_engine NOLOGIN BYPASSRLS",
    "CREATE ROLE haus_test LOGIN IN ROLE haus_app",
];

/// A Postgres cluster with the roles of the product, in memory where there is room.
pub struct Postgres {
    rig: rig::postgres::Postgres,
    _logs: Folder,
}

impl Postgres {
    pub fn start() -> Self {
        let logs = Folder::new("logs").unwrap();
        let rig = rig::postgres::Postgres::start_in(Folder::in_memory("postgres").unwrap(), logs.path()).unwrap();
        let postgres = Self { rig, _logs: logs };
        for role in ROLES {
            postgres.run(role);
        }
        postgres
    }

    /// One that nobody drops: it ends with this process, and its folders go then.
    pub fn lasting() -> Self {
        let postgres = Self::start();
        remove_at_exit(&[postgres.rig.folder(), postgres._logs.path()]);
        postgres
    }

    /// Runs one statement as the owner.
    pub fn run(&self, statement: &str) {
        self.rig.query("postgres", statement).unwrap();
    }
}

impl Deref for Postgres {
    type Target = rig::postgres::Postgres;

    fn deref(&self) -> &Self::Target {
        &self.rig
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.rig
    }
}

/// A child that waits for the end of this process, and then for the end of what still writes there.
fn remove_at_exit(folders: &[&Path]) {
    let script = r#"read -r _; for try in $(seq 50); do sleep 0.2; rm -rf "$@" && exit; done"#;
    let child = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(folders)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its standard input ends when this process does, however that comes.
    std::mem::forget(child);
}
