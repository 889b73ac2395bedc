//! The migrations themselves, in order, and the checksums by which a changed one is known.

use aws_lc_rs::digest::{SHA256, digest};

/// A migration and its way back.
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    /// Checksum of the way up as it was first released, where its words were changed since in a way that makes no difference
    /// to an empty database. It is what databases keep, so that every release knows the step.
    first: Option<&'static str>,
}

macro_rules! migration {
    ($version:literal, $file:literal) => {
        migration!($version, $file, None)
    };
    ($version:literal, $file:literal, $first:expr) => {
        Migration {
            version: $version,
            name: $file,
            up: include_str!(concat!("../../../migrations/", $file, ".up.sql")),
            down: include_str!(concat!("../../../migrations/", $file, ".down.sql")),
            first: $first,
        }
    };
}

/// Every migration, in order. A test compares this list with the folder.
pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_identity"),
    migration!(2, "0002_messaging"),
    migration!(3, "0003_engine"),
    migration!(4, "0004_engine_reads"),
    migration!(5, "0005_houses"),
    migration!(6, "0006_session_origins"),
    migration!(7, "0007_profile_search"),
    // It once undid, at a second way up, what people had chosen since the first.
    migration!(8, "0008_consent", Some("1f61f95a6dc242e7d12df35fc2df4961c929faf19a992d67ebe1a2ebffaca74d")),
    migration!(9, "0009_leave_name"),
    migration!(10, "0010_member_order"),
    migration!(11, "0011_folded_names"),
    migration!(12, "0012_blocks"),
];

impl Migration {
    /// What a database keeps of it: of the way up alone, as a better way back may be written later.
    pub(super) fn checksum(&self) -> String {
        self.first.map_or_else(|| hex::encode(digest(&SHA256, self.up.as_bytes()).as_ref()), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_lc_rs::digest::{SHA256, digest};

    use super::MIGRATIONS;

    #[test]
    fn the_list_equals_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let found: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        let listed: BTreeSet<String> = MIGRATIONS
            .iter()
            .flat_map(|migration| [format!("{}.up.sql", migration.name), format!("{}.down.sql", migration.name)])
            .collect();
        assert_eq!(found, listed);
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1, "{}", migration.name);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)), "{}", migration.name);
        }
    }

    /// The checksum of a reworded step no longer follows its text, so its text is held here.
    #[test]
    fn reworded_steps_change_no_further() {
        let reworded: Vec<(i32, String)> = MIGRATIONS
            .iter()
            .filter(|migration| migration.first.is_some())
            .map(|migration| (migration.version, hex::encode(digest(&SHA256, migration.up.as_bytes()).as_ref())))
            .collect();
        assert_eq!(reworded, [(8, "00e66f62285dc47196af6d9768ad2f6bbc94ff8bfa5c777cf19d122df19e71cb".to_owned())]);
    }
}
