//! What an operator meets: settings that are nonsense, folders that are not there, and what goes where it should not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use crate::keys::{FIRST, Program, done, refused};
use crate::rig::Folder;
use crate::support::Database;

fn haus(data_dir: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haus"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HAUS_DATA_DIR", data_dir).env("HAUS_LISTEN", "127.0.0.1:0").envs(settings.iter().copied());
    command.output().unwrap()
}

#[test]
fn every_setting_is_refused_by_name_when_it_is_nonsense() {
    let folder = Folder::new("settings").unwrap();
    let data = folder.path().join("data");
    let help = String::from_utf8(haus(&data, &["--help"], &[]).stdout).unwrap();
    let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let names: Vec<&str> = unwrapped.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).collect();
    assert!(names.len() > 25, "the help was not understood: {names:?}");
    for name in &names {
        refused(&haus(&data, &["serve"], &[(name, "")]), 2, name);
    }
    for name in names.iter().filter(|name| !matches!(**name, "HAUS_SEED_PASSWORD" | "HAUS_DATA_DIR" | "HAUS_NODE")) {
        refused(&haus(&data, &["serve"], &[(name, "banana")]), 2, name);
    }
    for (name, value) in [
        ("HAUS_NODE", "two words"),
        ("HAUS_ORIGINS", "https://a.example,banana"),
        ("HAUS_ORIGINS", "https://a.example/path"),
        ("HAUS_PUBLIC_URL", "chat.example.org"),
        ("DATABASE_URL", "mysql://host/haus"),
        ("REDIS_URL", "http://host"),
        ("HAUS_REDIS_CA", "/nowhere.pem"),
        ("HAUS_REDIS_CA", "/etc/hostname"),
    ] {
        refused(&haus(&data, &["serve"], &[(name, value)]), 2, name);
    }
    let secret = haus(&data, &["serve"], &[("DATABASE_URL", "banana://u:hunter2@h/d")]);
    assert!(!String::from_utf8_lossy(&secret.stderr).contains("hunter2"), "a password was printed");
    assert!(!data.join("postgres/cluster").exists(), "something was built all the same");
}

#[test]
fn commands_that_need_a_database_build_none() {
    let folder = Folder::new("nothing").unwrap();
    let data = folder.path().join("data");
    let nobody = uuid::Uuid::nil().to_string();
    let commands: [&[&str]; 6] = [
        &["token", "--email", "kiki@haus.example"],
        &["token", "--profile", &nobody],
        &["epoch", "new"],
        &["keys", "status"],
        &["keys", "reseal"],
        &["migrate", "--status"],
    ];
    for arguments in commands {
        let output = haus(&data, arguments, &[]);
        refused(&output, 2, "HAUS_DATA_DIR");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no database"));
        assert!(!data.exists(), "{arguments:?} made something");
    }
    let doctor = haus(&data, &["doctor"], &[]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(!data.exists(), "the doctor made something");
}

#[test]
fn a_misspelt_setting_is_refused_with_the_name_that_was_meant() {
    let folder = Folder::new("misspelt").unwrap();
    let data = folder.path().join("data");
    for (name, meant) in
        [("HAUS_ORIGIN", "HAUS_ORIGINS"), ("HAUS_REDIS_URL", "REDIS_URL"), ("HAUS_SECRET", "HAUS_SECRET_KEY")]
    {
        for command in ["serve", "openapi"] {
            let output = haus(&data, &[command], &[(name, "x")]);
            refused(&output, 2, &format!("did you mean {meant}?"));
        }
    }
    // What a platform sets for a service of this name, and tools of ours.
    for name in [
        "HAUS_SERVICE_HOST",
        "HAUS_PORT",
        "HAUS_PORT_8080_TCP_ADDR",
        "HAUS_URL",
        "HAUS_TOKENS",
        "HAUS_BIN",
        "HAUS_NODE_PASSWORD",
    ] {
        let output = haus(&data, &["openapi"], &[(name, "tcp://10.0.0.1:80")]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains(name), "{name}");
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named_with_a_way_out() {
    let folder = Folder::new("listen").unwrap();
    let data = folder.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let serve = |address: &str| haus(&data, &["serve"], &[("HAUS_LISTEN", address)]);
    let output = serve(&format!("127.0.0.1:{port}"));
    refused(&output, 2, &format!("HAUS_LISTEN=127.0.0.1:{}", port.checked_add(1).unwrap_or(8080)));
    refused(&output, 2, "in use by another program");
    refused(&serve("192.0.2.1:8080"), 2, "HAUS_LISTEN=127.0.0.1:8080");
    for address in ["localhost", "8080", ":8080", "chat.example.org:80", "127.0.0.1"] {
        refused(&serve(address), 2, "such as 127.0.0.1:8080");
        refused(&serve(address), 2, "HAUS_LISTEN");
    }
    assert!(!data.exists(), "something was built all the same");
}

/// `program` as somebody who is not root, so that permissions count.
fn as_nobody(program: &Path, data_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program).args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HAUS_DATA_DIR", data_dir).env("HAUS_LISTEN", "127.0.0.1:0");
    command.output().unwrap()
}

#[test]
fn a_folder_that_may_not_be_read_or_written_says_so() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become somebody else.
        return;
    }
    let folder = Folder::new("permission").unwrap();
    // The folder of builds may be closed to others.
    let program = folder.path().join("haus");
    fs::copy(env!("CARGO_BIN_EXE_haus"), &program).unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("postgres/cluster")).unwrap();
    let nobody = uuid::Uuid::nil().to_string();
    let commands: [&[&str]; 4] =
        [&["token", "--profile", &nobody], &["epoch", "new"], &["keys", "status"], &["migrate", "--status"]];
    for hidden in [data.join("postgres"), data.clone()] {
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
        for arguments in commands {
            let output = as_nobody(&program, &data, arguments);
            refused(&output, 2, "Permission denied");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("HAUS_DATA_DIR") && !text.contains("no database"), "{text}");
        }
        let doctor = String::from_utf8(as_nobody(&program, &data, &["doctor"]).stdout).unwrap();
        assert!(doctor.contains("BAD  database") && doctor.contains("Permission denied"), "{doctor}");
    }
    let output = as_nobody(&program, &folder.path().join("new"), &["serve"]);
    refused(&output, 2, "such as HAUS_DATA_DIR=");
    refused(&output, 2, "Permission denied");
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new("unwritable").unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below"), Path::new("/proc/haus").to_owned()] {
        refused(&haus(&place, &["serve"], &[]), 2, "HAUS_DATA_DIR");
    }
}

#[test]
fn files_of_the_private_postgres_are_private_and_passwords_are_not_printed() {
    let folder = Folder::new("private").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    // Whoever may write beside the folder's files must not have others overwritten through them.
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    for name in ["logins.new", "postgres-owner.new", "postgres-app.new"] {
        symlink(&victim, data.join(name)).unwrap();
    }
    let first = haus(&data, &["seed"], &[]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let logins = fs::read_to_string(data.join("logins.txt")).unwrap();
    let passwords: Vec<&str> = logins.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    assert_eq!(passwords.len(), 3);
    let again = haus(&data, &["seed"], &[]);
    for output in [&first, &again] {
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("logins.txt"), "{text}");
        assert!(passwords.iter().all(|password| !text.contains(password)), "a password went to what is no terminal");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    let files = ["logins.txt", "secret.key", "haus.lock", "postgres.log", "postgres.log.1", "postgres-app.password"];
    for name in files.into_iter().chain(["postgres-owner.password"]) {
        let mode = fs::symlink_metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let token = haus(&data, &["token", "--email", "kiki@haus.example"], &[]);
    assert!(token.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_drops_rows_is_asked_for_twice() {
    let database = Database::new().await;
    let program = Program::on(&database);
    let owner = format!("postgres://haus_owner@127.0.0.1:{}/{}", database.port, database.name);
    let settings = [("HAUS_SECRET_KEY", FIRST), ("DATABASE_OWNER_URL", owner.as_str())];
    // Without rows a way back loses nothing.
    done(&program.run(&["migrate", "--to", "0"], &settings));
    done(&program.run(&["migrate"], &settings));
    done(&program.run(&["seed"], &settings));
    for way in [["--to", "1"], ["--to", "0"], ["--down", "99"]] {
        let output = program.run(&["migrate", way[0], way[1]], &settings);
        refused(&output, 2, "--destroy-data");
        assert!(String::from_utf8_lossy(&output.stderr).contains("messages"), "what is lost is named");
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&database.owner).await.unwrap();
    assert!(kept > 0);
    done(&program.run(&["migrate", "--to", "1", "--destroy-data"], &settings));
    done(&program.run(&["migrate"], &settings));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_knows_its_own_node_from_a_stranger() {
    let database = Database::new().await;
    let program = Program::on(&database);
    let ours = [("HAUS_SECRET_KEY", FIRST)];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let doctor = |program: &Program, address: &str| {
        let settings = [ours[0], ("HAUS_LISTEN", address)];
        String::from_utf8(program.run(&["doctor"], &settings).stdout).unwrap()
    };
    let text = doctor(&program, &address);
    assert!(text.contains("BAD  listen") && text.contains("no haus"), "{text}");
    drop(listener);
    assert!(doctor(&program, &address).contains("is free"));
    let mut node = program.command(&["serve"], &[ours[0], ("HAUS_LISTEN", &address)]).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !doctor(&program, &address).contains("ok   listen    ".trim_end())
        || doctor(&program, &address).contains("is free")
    {
        assert!(std::time::Instant::now() < deadline, "{}", doctor(&program, &address));
    }
    let own = doctor(&program, &address);
    let other = Database::new().await;
    let stranger = Program::on(&other);
    let settings = [("HAUS_SECRET_KEY", crate::keys::SECOND), ("HAUS_LISTEN", address.as_str())];
    let foreign = String::from_utf8(stranger.run(&["doctor"], &settings).stdout).unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(own.contains("a node of this deployment"), "{own}");
    assert!(foreign.contains("BAD  listen") && foreign.contains("another deployment"), "{foreign}");
}
