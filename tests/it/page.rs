//! The page in a real Chromium against the true program with its embedded default, restarted under it; and the client
//! library's own tests under Node. Needs `node`, `npm` and `chromium`, which `make test` provides.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::cluster;
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A drain of the default length would only make the test slow.
const DRAIN_MS: &str = "500";
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// `haus serve` with a folder of its own and no `DATABASE_URL`: the private Postgres, seeded.
struct Program {
    folder: PathBuf,
    listen: String,
    settings: &'static [(&'static str, &'static str)],
    child: Option<Child>,
}

impl Program {
    fn start(name: &str, settings: &'static [(&'static str, &'static str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("haus-page-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut program = Self { folder, listen: format!("127.0.0.1:{port}"), settings, child: None };
        program.resume();
        program
    }

    fn resume(&mut self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_haus"), "serve"]);
        for name in ["DATABASE_URL", "DATABASE_OWNER_URL", "DATABASE_REPLICA_URL", "REDIS_URL", "HAUS_SECRET_KEY"] {
            command.env_remove(name);
        }
        command.env("HAUS_LISTEN", &self.listen).env("HAUS_DATA_DIR", self.folder.join("data"));
        command.env("HAUS_DRAIN_MS", DRAIN_MS).env("HAUS_LOG", "warn").stdout(Stdio::piped());
        command.envs(self.settings.iter().copied());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.child = Some(child);
        let ready = lines.next().expect("haus serve ends before it is ready").unwrap();
        assert!(ready.contains(r#""ready":true"#), "{ready}");
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let deadline = Instant::now() + STOP_DEADLINE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "haus does not end on SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// E-mail and password of those who can log in, as the program leaves them for people.
    fn logins(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.folder.join("data/logins.txt")).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_email = |word: &str| word.contains('@');
        words.windows(2).filter(|pair| is_email(pair[0])).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_client_library_passes_its_own_tests() {
    let folder = Path::new(ROOT).join("clients/js/test");
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let tests = files.iter().filter(|path| path.to_string_lossy().ends_with(".test.js"));
    let output = Command::new("node").arg("--test").args(tests).output().expect("node runs (Debian package nodejs)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_client_library_holds_against_a_bad_hour() {
    let program = Program::start("hour", &[]);
    let pid = program.child.as_ref().unwrap().id().to_string();
    let logins = program.logins();
    let people: Vec<&str> = logins[..2].iter().flat_map(|(email, password)| [email.as_str(), password]).collect();
    let output = Command::new("node")
        .args(["--experimental-websocket", "--no-warnings"])
        .arg(Path::new(ROOT).join("clients/js/test/wire/hour.mjs"))
        .args([&format!("http://{}", program.listen), &pid])
        .args(people)
        .output()
        .expect("node runs (Debian package nodejs)");
    let told = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && told.lines().any(|line| line == "PASS");
    assert!(passed, "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_page_comes_small_and_its_files_are_kept_until_they_change() {
    let cluster = cluster(1, &[]).await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let request = cluster.http.get(format!("http://{}{path}", cluster.nodes[0].address));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    };
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    };
    let page = get("/", &[]).await;
    assert_eq!(header(&page, "cache-control"), "no-cache");
    let html = page.text().await.unwrap();
    let named: Vec<&str> = html.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!((2..=4).contains(&named.len()), "{named:?}");
    for path in named {
        let answer = get(path, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(header(&answer, "cache-control"), "public, max-age=31536000, immutable", "{path}");
        assert_eq!(header(&answer, "content-encoding"), "br", "{path}");
        let tag = header(&answer, "etag");
        let again = get(path, &[("accept-encoding", "gzip, br"), ("if-none-match", &tag)]).await;
        assert_eq!((again.status().as_u16(), header(&again, "etag")), (304, tag), "{path}");
        assert_eq!(header(&get(path, &[("accept-encoding", "gzip")]).await, "content-encoding"), "gzip");
        assert_eq!(header(&get(path, &[]).await, "content-encoding"), "");
        // A page from another version names another hash: it works, and is not kept.
        let (stem, rest) = path.split_once('.').unwrap();
        let other = format!("{stem}.0123456789abcdef.{}", rest.split_once('.').unwrap().1);
        let answer = get(&other, &[]).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "cache-control").as_str()), (200, "no-cache"), "{other}");
    }
    for path in ["/assets/app.js", "/assets/nothing.0123456789abcdef.js", "/assets/..%2fapp.0.js"] {
        assert_eq!(get(path, &[]).await.status(), 404, "{path}");
    }
    let library = get("/js/haus.js", &[("accept-encoding", "br")]).await;
    assert_eq!(
        (header(&library, "cache-control").as_str(), header(&library, "content-encoding").as_str()),
        ("no-cache", "br")
    );
}

#[test]
fn two_browsers_chat_and_lose_nothing_when_the_server_restarts() {
    let mut program = Program::start("chat", &[]);
    let logins = program.logins();
    assert!(logins.len() >= 2, "fewer than two logins in logins.txt");
    let mut browser = Command::new("node")
        .arg(Path::new(ROOT).join("tests/browser/chat.mjs"))
        .arg(format!("http://{}", program.listen))
        .args([&logins[0].0, &logins[0].1, &logins[1].0, &logins[1].1])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs (Debian package nodejs)");
    let mut answers = browser.stdin.take().unwrap();
    let mut told = Vec::new();
    for line in BufReader::new(browser.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "RESTART" {
            program.stop();
            program.resume();
            writeln!(answers, "OK").unwrap();
        }
        told.push(line);
    }
    let status = browser.wait().unwrap();
    assert!(status.success() && told.iter().any(|line| line == "PASS"), "{}", told.join("\n"));
}

/// Runs a script of `tests/browser` to its end.
fn browse(program: &Program, script: &str, arguments: &[&str]) {
    let output = Command::new("node")
        .arg(Path::new(ROOT).join("tests/browser").join(script))
        .arg(format!("http://{}", program.listen))
        .args(arguments)
        .output()
        .expect("node runs (Debian package nodejs)");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.lines().any(|line| line == "PASS"),
        "{script}:\n{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The checker of accessibility, in the version of `tests/browser/package-lock.json`; kept beside the builds.
fn axe() -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let lock = |folder: &Path| std::fs::read(folder.join("package-lock.json")).ok();
    let script = folder.join("node_modules/axe-core/axe.min.js");
    let wanted = Path::new(ROOT).join("tests/browser");
    if !script.exists() || lock(&folder) != lock(&wanted) {
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(wanted.join(name), folder.join(name)).unwrap();
        }
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        let output = Command::new("npm").args(arguments).current_dir(&folder).output().expect("npm runs");
        assert!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
    }
    script.to_str().unwrap().to_owned()
}

#[test]
fn somebody_new_finds_the_way_without_a_mouse_and_long_conversations_stay_light() {
    let program = Program::start("new", &[("HAUS_AUTO_ACTIVATE", "true"), ("HAUS_LIMITS", "off")]);
    let logins = program.logins();
    let [(email, password), (other, others)] = [&logins[1], &logins[2]].map(|(a, b)| (a.as_str(), b.as_str()));
    // The first word of a name is the first word of the address.
    let name = email.split('@').next().unwrap();
    browse(&program, "first_hour.mjs", &[email, password, name]);
    browse(&program, "staying.mjs", &[email, password, other, others]);
    browse(&program, "reading.mjs", &[email, password, other, others]);
    browse(&program, "directions.mjs", &[email, password]);
    browse(&program, "accessible.mjs", &[email, password, &axe()]);
}
