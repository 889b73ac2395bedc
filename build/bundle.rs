//! Joins ES modules into one, so that a page needs one request for its script. Understands the forms this project
//! writes and refuses every other, so that nothing is joined wrongly in silence: `import { a, b as c } from './x.js';`,
//! `export const|function|async function|class NAME`, `export { a } from './x.js';`. No cycles.
//!
//! Each module becomes a function called once, in the order of imports, so names of one never meet those of another.

use std::collections::BTreeMap;

/// The joined text of `entry` and all it imports. `read` gives a module's text by its path, such as `web/app.js`.
///
/// # Errors
/// A sentence that names the module and the line that is not understood.
pub fn bundle(entry: &str, read: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut joined = Joined { read, names: BTreeMap::new(), under_way: Vec::new(), text: String::new() };
    joined.add(entry)?;
    Ok(joined.text)
}

struct Joined<'a> {
    read: &'a dyn Fn(&str) -> Result<String, String>,
    /// Path of a module → the constant that holds its exports.
    names: BTreeMap<String, String>,
    under_way: Vec<String>,
    text: String,
}

impl Joined<'_> {
    /// Adds a module, after those it imports. Gives the constant that holds its exports.
    fn add(&mut self, path: &str) -> Result<String, String> {
        if let Some(name) = self.names.get(path) {
            return Ok(name.clone());
        }
        if self.under_way.iter().any(|one| one == path) {
            return Err(format!("{path} imports itself, through {}", self.under_way.join(", ")));
        }
        self.under_way.push(path.to_owned());
        let source = (self.read)(path)?;
        let mut body = String::new();
        let mut exports = Vec::new();
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("import ") || line.starts_with("export {") {
                let mut statement = line.to_owned();
                while !statement.contains(';') {
                    let next = lines.next().ok_or_else(|| format!("{path}: a statement without an end: {line}"))?;
                    statement = format!("{statement} {}", next.trim());
                }
                self.clause(path, &statement, &mut body, &mut exports)?;
            } else if let Some(declared) = line.strip_prefix("export ") {
                exports.push(declared_name(declared).ok_or_else(|| format!("{path}: not understood: {line}"))?);
                body.push_str(declared);
                body.push('\n');
            } else {
                body.push_str(line);
                body.push('\n');
            }
        }
        self.under_way.pop();
        let name = format!("module{}", self.names.len());
        let returned =
            if exports.is_empty() { String::new() } else { format!("return {{ {} }};\n", exports.join(", ")) };
        self.text.push_str(&format!("// {path}\nconst {name} = (() => {{\n{body}{returned}}})();\n"));
        self.names.insert(path.to_owned(), name.clone());
        Ok(name)
    }

    /// `import { … } from '…';` or `export { … } from '…';`
    fn clause(
        &mut self,
        path: &str,
        statement: &str,
        body: &mut String,
        exports: &mut Vec<String>,
    ) -> Result<(), String> {
        let wrong = || format!("{path}: not understood: {statement}");
        let (head, rest) = statement.split_once('{').ok_or_else(wrong)?;
        let (names, source) = rest.split_once('}').ok_or_else(wrong)?;
        let source =
            source.trim().strip_prefix("from ").and_then(|text| text.trim().strip_suffix(';')).ok_or_else(wrong)?;
        let from = self.add(&resolve(path, source.trim().trim_matches(['\'', '"'])))?;
        let pairs = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let pairs = pairs.map(|name| name.split_once(" as ").unwrap_or((name, name)));
        match head.trim() {
            "import" => {
                let taken: Vec<String> = pairs.map(|(there, here)| format!("{there}: {here}")).collect();
                body.push_str(&format!("const {{ {} }} = {from};\n", taken.join(", ")));
            }
            "export" => exports.extend(pairs.map(|(there, out)| format!("{out}: {from}.{there}"))),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// The path of what `from` names, seen from `path`; `/js/` is the library's folder, as in the page's addresses.
fn resolve(path: &str, from: &str) -> String {
    if let Some(name) = from.strip_prefix("./js/") {
        return format!("clients/js/{name}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", from.trim_start_matches("./"))
}

/// The name in `const NAME = …`, `function NAME(…`, `async function NAME(…`, `class NAME …`.
fn declared_name(declared: &str) -> Option<String> {
    let rest =
        ["const ", "function ", "async function ", "class "].iter().find_map(|kind| declared.strip_prefix(kind))?;
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$')).collect();
    (!name.is_empty()).then_some(name)
}
