//! Schemathesis over `/openapi.json`, all checks on, as an ADMIN, a MEMBER and somebody PENDING. Needs `python3` with
//! `venv`, which `make test` provides; the tool is installed once, beside the builds, in the versions of
//! `tests/schemathesis/requirements.txt`. `HAUS_SCHEMATHESIS_SEED` is another seed than the usual one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::cluster::{Cluster, Person, cluster};

const SEED: &str = "1";
/// Generated cases for an operation in each phase.
const EXAMPLES: &str = "12";
/// Sessions to be ended by the run.
const SPARE: usize = 150;

/// Who runs it, and the operations that their kind of account is never let do.
const RUNS: [(&str, &str, &[&str]); 3] =
    [("ACTIVE", "ADMIN", &[]), ("ACTIVE", "MEMBER", &[]), ("PENDING", "APPLICANT", &["addMembers", "changeThread"])];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_is_kept_whatever_is_sent() {
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let mut faults = Vec::new();
    for (status, role, never) in RUNS {
        let cluster = cluster(1, &["--limits=off"]).await;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{}", role.to_lowercase()));
        std::fs::create_dir_all(&folder).unwrap();
        let counts = folder.join("counts.json");
        let _ = std::fs::remove_file(&counts);
        let mut fixture = fixture(&cluster, status, role).await;
        fixture["counts"] = json!(counts);
        std::fs::write(folder.join("fixture.json"), fixture.to_string()).unwrap();
        let url = format!("http://{}/openapi.json", cluster.nodes[0].address);
        let (python, here) = (python.clone(), folder.clone());
        let run = move || run(&python, &here, &url);
        let (passed, told) = tokio::task::spawn_blocking(run).await.unwrap();
        if !passed {
            faults.push(format!("as {status} {role}:\n{told}"));
            continue;
        }
        let counts: BTreeMap<String, BTreeMap<String, u32>> =
            serde_json::from_slice(&std::fs::read(&counts).unwrap()).unwrap();
        let is_done =
            |name: &String| counts.get(name).is_some_and(|all| all.keys().any(|status| status.starts_with('2')));
        let missed: Vec<String> = operations()
            .into_iter()
            .filter(|name| !is_done(name) && !never.contains(&name.as_str()))
            .map(|name| format!("{name}: {:?}", counts.get(&name)))
            .collect();
        if !missed.is_empty() {
            faults.push(format!("as {status} {role} never answered with 2xx:\n{}", missed.join("\n")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Ids of all operations of the document.
fn operations() -> BTreeSet<String> {
    let document = serde_json::to_value(haus::http::openapi()).unwrap();
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

/// Somebody with people around and threads, and what the hooks are to know of them.
async fn fixture(cluster: &Cluster, status: &str, role: &str) -> Value {
    let client = &cluster.http;
    let login = json!({"email": "tester@example.org", "password": "kettle drum eleven"});
    let mut account = login.clone();
    account["displayName"] = json!("Tester");
    let url = format!("http://{}/v1/auth/register", cluster.nodes[0].address);
    let made = client.post(url).json(&account).send().await.unwrap();
    let made: Value = serde_json::from_slice(&made.bytes().await.unwrap()).unwrap();
    let id: Uuid = made["profile"]["id"].as_str().unwrap().parse().unwrap();
    let person = cluster.sign_in(id, 600_000).await;
    let mut profiles = Vec::new();
    for _ in 0..4 {
        profiles.push(cluster.world.person().await);
    }
    // Threads are made by the ACTIVE.
    let set = |status: &str| format!("UPDATE profiles SET status = '{status}', role = '{role}' WHERE id = '{id}'");
    cluster.world.database.run(set("ACTIVE")).await;
    let mut threads = Vec::new();
    for _ in 0..6 {
        threads.push(cluster.world.group(id, &profiles).await);
    }
    cluster.world.database.run(set(status)).await;
    let mut spare = Vec::new();
    // Of other people: one person has so many at once.
    for _ in 0..SPARE {
        let Person { session, token, .. } =
            cluster.sign_in(cluster.world.person_with(status, role).await, 600_000).await;
        spare.push(json!({"session": session, "token": token}));
    }
    json!({"token": person.token, "own": id, "spare": spare, "credentials": login,
        "refreshToken": made["refreshToken"], "profiles": profiles, "threads": threads})
}

/// Whether it found nothing, and what it told.
fn run(python: &Path, folder: &Path, url: &str) -> (bool, String) {
    let seed = std::env::var("HAUS_SCHEMATHESIS_SEED").unwrap_or_else(|_| SEED.to_owned());
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/schemathesis.toml"))
        .args(["run", url, "--checks", "all", "--no-color", "--continue-on-failure"])
        .args(["--seed", &seed, "--max-examples", EXAMPLES, "--generation-database", "none"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HAUS_FIXTURE", folder.join("fixture.json"))
        .current_dir(folder)
        .output()
        .expect("python runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&told).into_owned())
}

/// The Python that has the tool.
fn python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/requirements.txt");
    let (held, python) = (folder.join("requirements.txt"), folder.join("bin/python"));
    if std::fs::read(&held).ok() != std::fs::read(&wanted).ok() {
        let _ = std::fs::remove_dir_all(&folder);
        install(
            "python3 -m venv (Debian package python3-venv)",
            Command::new("python3").args(["-m", "venv"]).arg(&folder),
        );
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r"];
        install("pip install", Command::new(&python).args(pip).arg(&wanted));
        std::fs::copy(&wanted, &held).unwrap();
    }
    python
}

fn install(what: &str, command: &mut Command) {
    let failed = match command.output() {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned(),
        Err(error) => error.to_string(),
    };
    panic!("Schemathesis cannot be installed: {what}: {failed}");
}
