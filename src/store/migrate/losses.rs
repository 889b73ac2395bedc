//! What a way back would drop: read from our own files, and asked of the database.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{MIGRATIONS, MigrateError, Target, applied, goal_of};

/// Tables with rows that the way to `target` would drop, or take a column from.
pub async fn would_lose(owner: &mut PgConnection, target: Target) -> Result<Vec<String>, MigrateError> {
    let applied = applied(owner).await?;
    let goal = goal_of(target, &applied)?;
    let is_applied = |version: i32| applied.iter().any(|row| row.version == version);
    let downs = MIGRATIONS.iter().filter(|m| m.version > goal && is_applied(m.version));
    let mut lost = Vec::new();
    for table in downs.flat_map(|migration| emptied(migration.down)) {
        let is_there: bool =
            sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(&mut *owner).await?;
        if !is_there || lost.contains(&table) {
            continue;
        }
        let has_rows = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {table})"));
        if sqlx::query_scalar(has_rows).fetch_one(&mut *owner).await? {
            lost.push(table);
        }
    }
    Ok(lost)
}

/// Tables that a way back drops or takes a column from: names of our own files, in lower case.
fn emptied(down: &str) -> Vec<String> {
    let lines = down.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join(" ").to_lowercase();
    let words = |statement: &str| statement.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
    let mut tables = Vec::new();
    for statement in text.split(';').map(words) {
        let names = match statement.iter().map(String::as_str).collect::<Vec<&str>>()[..] {
            ["drop", "table", "if", "exists", ref names @ ..] | ["drop", "table", ref names @ ..] => names.join(" "),
            ["alter", "table", name, ref rest @ ..] if rest.windows(2).any(|two| two == ["drop", "column"]) => {
                name.to_owned()
            }
            ["truncate", "table", ref names @ ..] | ["truncate", ref names @ ..] => names.join(" "),
            ["delete", "from", name, ..] => name.to_owned(),
            _ => continue,
        };
        let names = names.replace(',', " ");
        tables.extend(names.split_whitespace().filter(|name| *name != "cascade").map(str::to_owned));
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::{MIGRATIONS, emptied};

    #[test]
    fn what_a_way_back_drops_is_read_from_it() {
        let down = "-- DROP TABLE not_this;\nDROP TABLE a, b,\n  c;\nALTER TABLE d DROP CONSTRAINT x;\n\
                    ALTER TABLE e DROP COLUMN y;DROP INDEX z; DROP TABLE IF EXISTS f CASCADE";
        assert_eq!(emptied(down), ["a", "b", "c", "e", "f"]);
        let messages = MIGRATIONS.iter().find(|migration| migration.version == 2).expect("there");
        assert!(emptied(messages.down).contains(&"messages".to_owned()));
    }
}
