//! What a way back would destroy: read from our own files, and asked of the database.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{MIGRATIONS, MigrateError, Target, applied, goal_of};

/// Rows that a statement takes away, in whole or in part.
#[derive(Debug, PartialEq, Eq)]
struct Loss {
    table: String,
    /// Which of them; all where it is empty.
    condition: String,
}

/// Tables with rows that the way to `target` would drop, change, or take something from.
pub async fn would_lose(owner: &mut PgConnection, target: Target) -> Result<Vec<String>, MigrateError> {
    let applied = applied(owner).await?;
    let goal = goal_of(target, &applied)?;
    let is_applied = |version: i32| applied.iter().any(|row| row.version == version);
    let downs = MIGRATIONS.iter().filter(|m| m.version > goal && is_applied(m.version));
    let mut lost = Vec::new();
    for Loss { table, condition } in downs.flat_map(|migration| losses(migration.down)) {
        let is_there: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(&mut *owner).await?;
        if !is_there || lost.contains(&table) {
            continue;
        }
        let condition = if condition.is_empty() { "true" } else { &condition };
        let has_rows = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {table} WHERE {condition})"));
        if sqlx::query_scalar(has_rows).fetch_one(&mut *owner).await? {
            lost.push(table);
        }
    }
    Ok(lost)
}

/// What the statements of a way back drop, delete or overwrite. They are our own files: keywords and names without quotes, no
/// semicolon inside a text.
fn losses(down: &str) -> Vec<Loss> {
    let lines = down.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split(';').flat_map(losses_of).collect()
}

fn losses_of(statement: &str) -> Vec<Loss> {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let lower: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let keywords: Vec<&str> = lower.iter().map(String::as_str).collect();
    let of = |table: &str, condition: String| Loss { table: table.to_owned(), condition };
    let whole = |names: &[&str]| {
        let names = names.join(" ").replace(',', " ");
        let names = names.split_whitespace().filter(|name| !matches!(*name, "cascade" | "restrict"));
        names.map(|name| of(name, String::new())).collect()
    };
    // The rows that a WHERE of the statement meets; of more than one table, any.
    let met = |table: &str| {
        let joins = keywords.iter().skip(2).any(|word| matches!(*word, "from" | "using"));
        let from = keywords.iter().position(|word| *word == "where").filter(|_| !joins);
        vec![of(table, from.map(|at| words[at + 1..].join(" ")).unwrap_or_default())]
    };
    match keywords[..] {
        ["drop", "table", "if", "exists", ref names @ ..] | ["drop", "table", ref names @ ..] => whole(names),
        ["truncate", "table", ref names @ ..] | ["truncate", ref names @ ..] => whole(names),
        ["alter", "table", table, ref rest @ ..] => {
            let after = rest.windows(2).enumerate().filter(|(_, two)| *two == ["drop", "column"]).map(|(at, _)| at + 2);
            let column = |at: usize| match rest.get(at..) {
                Some(["if", "exists", name, ..] | [name, ..]) => format!("{} IS NOT NULL", name.trim_end_matches(',')),
                _ => String::new(),
            };
            after.map(|at| of(table, column(at))).collect()
        }
        ["delete", "from", "only", table, ..]
        | ["delete", "from", table, ..]
        | ["update", "only", table, ..]
        | ["update", table, ..] => met(table),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Loss, MIGRATIONS, losses};

    #[test]
    fn what_a_way_back_destroys_is_read_from_it() {
        let down = "-- DROP TABLE not_this;\nDROP TABLE a, b,\n  c;\nALTER TABLE d DROP CONSTRAINT x;\n\
                    ALTER TABLE e DROP COLUMN y, DROP COLUMN IF EXISTS w;DROP INDEX z; DROP TABLE IF EXISTS f CASCADE;\n\
                    UPDATE g SET x = 'B', y = 1\n  WHERE x = 'A' AND y > 0; UPDATE h SET x = NULL; delete from i where n = 1;\n\
                    UPDATE j SET x = k.x FROM k WHERE k.id = j.id; TRUNCATE l";
        let found = losses(down);
        let found: Vec<(&str, &str)> =
            found.iter().map(|Loss { table, condition }| (table.as_str(), condition.as_str())).collect();
        let expected = [
            ("a", ""),
            ("b", ""),
            ("c", ""),
            ("e", "y IS NOT NULL"),
            ("e", "w IS NOT NULL"),
            ("f", ""),
            ("g", "x = 'A' AND y > 0"),
            ("h", ""),
            ("i", "n = 1"),
            ("j", ""),
            ("l", ""),
        ];
        assert_eq!(found, expected);
        let messaging = MIGRATIONS.iter().find(|migration| migration.version == 2).expect("there");
        let named = |table: &str| losses(messaging.down).into_iter().any(|loss| loss.table == table);
        assert!(named("messages") && named("profiles"));
    }
}
