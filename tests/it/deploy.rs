//! `docker-compose.yml`, `Dockerfile` and the proxy's configuration against `haus --help`: every variable, port and
//! command. Docker is not run here. The reader of YAML knows indentation, `key: value`, lists and anchors, no more.

use std::collections::BTreeSet;
use std::process::Command;

/// One scalar of a YAML file with its path: `services.node1.environment.HAUS_NODE`.
type Scalar = (String, String);

/// Variables, commands and what they are checked against.
struct Known {
    variables: BTreeSet<String>,
    commands: BTreeSet<String>,
}

fn known() -> Known {
    let output = Command::new(env!("CARGO_BIN_EXE_haus")).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    // Long lines are wrapped wherever there is a space.
    let unwrapped = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let variables =
        unwrapped.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).map(str::to_owned).collect();
    let commands = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    Known { variables, commands }
}

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn scalars(text: &str) -> Vec<Scalar> {
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        path.retain(|(at, _)| *at < indent);
        let joined = |path: &[(usize, String)]| path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
        if let Some(item) = content.strip_prefix("- ") {
            found.push((joined(&path), item.trim_matches('"').to_owned()));
            continue;
        }
        let (key, value) = content.split_once(':').unwrap_or_else(|| panic!("not a key: {line}"));
        path.push((indent, key.to_owned()));
        let value = value.trim();
        if !value.is_empty() && !value.starts_with('&') {
            found.push((joined(&path), value.to_owned()));
        }
    }
    found
}

/// Items of an inline list: `["CMD", "curl"]`.
fn items(value: &str) -> Vec<&str> {
    value.trim_matches(['[', ']']).split(',').map(|item| item.trim().trim_matches('"')).collect()
}

fn is_ours(variable: &str) -> bool {
    ["HAUS_", "DATABASE_", "REDIS_"].iter().any(|prefix| variable.starts_with(prefix))
}

/// A secret must be asked for by name: `${NAME:?why}`.
fn holds_a_secret(variable: &str, value: &str) -> bool {
    let password =
        value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')?.0.split_once(':')).map(|(_, it)| it);
    let secret = match password {
        Some(password) => password,
        None if variable.contains("PASSWORD") || variable.contains("SECRET") => value,
        None => return false,
    };
    !(secret.starts_with("${") && secret.contains(":?") && secret.ends_with('}'))
}

fn faults_of_compose(text: &str, known: &Known) -> Vec<String> {
    let mut faults = Vec::new();
    let scalars = scalars(text);
    let of_haus = |service: &str| {
        scalars.iter().any(|(path, value)| *path == format!("services.{service}.build") && value == ".")
            || scalars.iter().any(|(path, value)| *path == format!("services.{service}.<<") && value == "*node")
    };
    for (path, value) in &scalars {
        let parts: Vec<&str> = path.split('.').collect();
        match parts.as_slice() {
            ["services", service, "environment", variable] if *variable != "<<" => {
                if of_haus(service) && !known.variables.contains(*variable) {
                    faults.push(format!("{service}: no setting {variable}"));
                }
                if is_ours(variable) && !of_haus(service) {
                    faults.push(format!("{service}: {variable} is given to a service that is not haus"));
                }
                if holds_a_secret(variable, value) {
                    faults.push(format!("{service}: a secret in {variable}"));
                }
            }
            ["services", service, "command"] if of_haus(service) => {
                let command = items(value)[0].to_owned();
                if !known.commands.contains(&command) {
                    faults.push(format!("{service}: no command {command}"));
                }
            }
            _ => {}
        }
    }
    faults
}

fn faults_of_dockerfile(text: &str, known: &Known) -> Vec<String> {
    let mut faults = Vec::new();
    let whole = text.replace("\\\n", " ");
    let one =
        |word: &str| whole.lines().filter_map(|line| line.strip_prefix(word)).next_back().unwrap_or_default().trim();
    for assignment in one("ENV ").split_whitespace() {
        let (variable, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        if !known.variables.contains(variable) {
            faults.push(format!("no setting {variable}"));
        }
        if let Some((_, port)) = value.rsplit_once(':')
            && !one("EXPOSE ").split_whitespace().any(|exposed| exposed == port)
        {
            faults.push(format!("{variable}: port {port} is not exposed"));
        }
    }
    if items(one("ENTRYPOINT ")) != ["haus"] {
        faults.push("the entry point is not haus".to_owned());
    }
    if !known.commands.contains(items(one("CMD "))[0]) {
        faults.push(format!("no command {}", one("CMD ")));
    }
    if matches!(one("USER "), "" | "0" | "root") {
        faults.push("runs as root".to_owned());
    }
    faults
}

#[test]
fn compose_and_dockerfile_agree_with_the_program() {
    let known = known();
    assert!(known.commands.contains("serve") && known.variables.contains("HAUS_LISTEN"), "the help was not understood");
    assert_eq!(faults_of_compose(&file("docker-compose.yml"), &known), Vec::<String>::new());
    assert_eq!(faults_of_dockerfile(&file("Dockerfile"), &known), Vec::<String>::new());
}

/// Names of settings in code marks: `HAUS_NODE`.
fn named(page: &str) -> BTreeSet<String> {
    let is_name = |text: &&str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_name);
    words.filter(|word| is_ours(word) && word.len() > "DATABASE_".len() - 2).map(str::to_owned).collect()
}

#[test]
fn every_setting_stands_in_operations_and_no_other_does() {
    let (known, page) = (known(), file("docs/operations.md"));
    let table = page.split("\n## ").find(|part| part.starts_with("Settings\n")).expect("a section about settings");
    let rows: String = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(named(&rows), known.variables, "the table of docs/operations.md and `haus --help`");
    // Elsewhere on the page also stand those of the compose file, and examples of what is refused.
    let compose = file("docker-compose.yml");
    let strangers: Vec<String> = named(&page)
        .into_iter()
        .filter(|name| !known.variables.contains(name) && !compose.contains(&format!("${{{name}:?")))
        .filter(|name| !matches!(name.as_str(), "HAUS_ORIGIN" | "HAUS_REDIS_URL" | "HAUS_SERVICE_HOST"))
        .collect();
    assert_eq!(strangers, Vec::<String>::new(), "docs/operations.md names what is no setting");
}

#[test]
fn ports_and_services_fit_together() {
    let scalars = scalars(&file("docker-compose.yml"));
    let value = |path: &str| {
        let found = scalars.iter().find(|(at, _)| at == path);
        found.unwrap_or_else(|| panic!("{path} is missing")).1.clone()
    };
    let node_port = value("services.node1.environment.HAUS_LISTEN").rsplit_once(':').unwrap().1.to_owned();
    let ready = format!("http://127.0.0.1:{node_port}/readyz");
    assert!(items(&value("services.node1.healthcheck.test")).contains(&ready.as_str()));
    assert!(file("Dockerfile").contains(&ready));
    let proxy = file("deploy/nginx.conf");
    for node in ["node1", "node2"] {
        assert!(proxy.contains(&format!("server {node}:{node_port} ")), "{node}");
        assert_eq!(value(&format!("services.{node}.environment.HAUS_NODE")), node);
        assert_eq!(value(&format!("services.proxy.depends_on.{node}.condition")), "service_healthy");
    }
    let published = value("services.proxy.ports");
    let (outside, inside) = published.split_once(':').unwrap();
    assert!(proxy.contains(&format!("listen {inside};")));
    assert!(value("services.node1.environment.HAUS_PUBLIC_URL").contains(&format!("localhost:{outside}")));
    assert_eq!(value("services.node1.environment.HAUS_TRUSTED_PROXIES"), {
        let subnet = value("networks.inside.ipam.config");
        subnet.strip_prefix("subnet: ").unwrap().to_owned()
    });
    assert_eq!(value("services.node1.depends_on.migrate.condition"), "service_completed_successfully");
    let node_variables = scalars.iter().filter(|(path, _)| path.starts_with("services.node"));
    assert!(
        !node_variables.clone().any(|(path, _)| path.ends_with("DATABASE_OWNER_URL")),
        "nodes never own the schema"
    );
}

#[test]
fn planted_mistakes_are_found() {
    let known = known();
    let compose = file("docker-compose.yml");
    let planted = [
        ("REDIS_URL:", "REDIS_ADDRESS:", "no setting REDIS_ADDRESS"),
        ("HAUS_NODE: node2", "HAUS_NODES: node2", "node2: no setting HAUS_NODES"),
        ("[\"migrate\"]", "[\"migrations\"]", "no command migrations"),
        ("${HAUS_SECRET_KEY:?32 bytes in base64}", "c2VjcmV0", "a secret in HAUS_SECRET_KEY"),
        ("${HAUS_NODE_PASSWORD:?the nodes' password}", "hunter2", "a secret in DATABASE_URL"),
    ];
    for (right, wrong, fault) in planted {
        assert!(compose.contains(right), "{right}");
        let faults = faults_of_compose(&compose.replace(right, wrong), &known);
        assert!(faults.iter().any(|found| found.contains(fault)), "{fault}: {faults:?}");
    }
    let docker = file("Dockerfile");
    for (right, wrong) in [
        ("USER 10001", "USER root"),
        ("CMD [\"serve\"]", "CMD [\"server\"]"),
        ("EXPOSE 8080", "EXPOSE 80"),
        ("HAUS_ENV", "HAUS_STAGE"),
    ] {
        assert!(!faults_of_dockerfile(&docker.replace(right, wrong), &known).is_empty(), "{right}");
    }
}
