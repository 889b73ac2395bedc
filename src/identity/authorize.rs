//! Who may what: the one function for the rules of status and platform role. Rules that need the resource's own rows
//! (membership, authorship, blocks) are asked by the use case, after this.

use uuid::Uuid;

use crate::protocol::ErrorCode;
use crate::protocol::codes::Refusal;
use crate::protocol::types::{UserRole, UserStatus};

/// The person who acts, as far as the rules below need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub role: UserRole,
    /// What `engine.standing` says: a suspension whose time is over is none.
    pub status: UserStatus,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Password, magic link, refresh.
    LogIn,
    /// Own data, and what others show.
    Read,
    /// End own sessions.
    ManageOwnSessions,
    /// Authenticate a websocket, or get a ticket for one.
    OpenSocket,
    EditOwnProfile,
    EditOwnSettings,
    Apply,
    Follow,
    Like,
    Comment,
    /// Open a DIRECT thread.
    OpenDirectThread,
    /// Create a GROUP thread or add people to one.
    CreateGroupThread,
    /// Create an ANNOUNCE or HOUSE thread; for whom of the ACTIVE depends on the house (`engine.create_thread`).
    CreateAnnounceThread,
    /// Send, edit, delete, react, pin, read in a thread one belongs to.
    WriteInThread,
    CreatePost,
    CreateGalleryItem,
    CreateEvent,
    CreateHouse,
    Report,
    /// Roles, status, system settings, audit: what only admins do.
    Administer,
}

/// What it is done to, where a rule depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Nothing in particular, or the actor's own.
    Own,
    /// Something that belongs to a profile.
    Profile(Uuid),
    Thread(Uuid),
    House(Uuid),
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub profile_id: Uuid,
    pub standing: Standing,
}

/// Whether `actor` may do `action` to `resource`, by status and platform role.
///
/// # Errors
/// `forbidden`, with the reason as a sentence for people.
pub fn authorize(actor: &Subject, action: Action, resource: Resource) -> Result<(), Refusal> {
    match actor.standing.status {
        UserStatus::Banned => return forbidden("this account is banned"),
        UserStatus::Suspended if !allowed_while_suspended(action) => {
            return forbidden("this account is suspended");
        }
        UserStatus::Pending if !allowed_while_pending(action) => {
            return forbidden("this account awaits approval");
        }
        UserStatus::Suspended | UserStatus::Pending | UserStatus::Active => {}
    }
    let own = match resource {
        Resource::Own => true,
        Resource::Profile(id) => id == actor.profile_id,
        Resource::Thread(_) | Resource::House(_) => false,
    };
    match action {
        Action::Administer | Action::CreateHouse if actor.standing.role < UserRole::Admin => {
            forbidden("this is for admins")
        }
        Action::EditOwnProfile | Action::EditOwnSettings | Action::ManageOwnSessions if !own => {
            forbidden("this belongs to somebody else")
        }
        _ => Ok(()),
    }
}

/// SUSPENDED: log in, read and export; every write is refused, and there is no socket.
fn allowed_while_suspended(action: Action) -> bool {
    matches!(action, Action::LogIn | Action::Read | Action::ManageOwnSessions)
}

/// PENDING: all but posts, gallery, events, GROUP threads and what needs a higher role.
fn allowed_while_pending(action: Action) -> bool {
    !matches!(
        action,
        Action::CreatePost
            | Action::CreateGalleryItem
            | Action::CreateEvent
            | Action::CreateGroupThread
            | Action::CreateAnnounceThread
            | Action::CreateHouse
            | Action::Report
            | Action::Administer
    )
}

fn forbidden(reason: &'static str) -> Result<(), Refusal> {
    Err(Refusal::new(ErrorCode::Forbidden, reason))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Action, Resource, Standing, Subject, authorize};
    use crate::protocol::types::{UserRole, UserStatus};

    fn may(role: UserRole, status: UserStatus, action: Action) -> bool {
        let standing = Standing { role, status };
        let actor = Subject { profile_id: Uuid::nil(), standing };
        authorize(&actor, action, Resource::Own).is_ok()
    }

    #[test]
    fn statuses() {
        use Action::{
            Comment, CreateGroupThread, CreatePost, LogIn, OpenDirectThread, OpenSocket, Read, WriteInThread,
        };
        let all = [LogIn, Read, OpenSocket, Comment, OpenDirectThread, WriteInThread, CreateGroupThread, CreatePost];
        let table = [
            (UserStatus::Active, [true; 8]),
            (UserStatus::Pending, [true, true, true, true, true, true, false, false]),
            (UserStatus::Suspended, [true, true, false, false, false, false, false, false]),
            (UserStatus::Banned, [false; 8]),
        ];
        for (status, expected) in table {
            let got = all.map(|action| may(UserRole::Member, status, action));
            assert_eq!(got, expected, "{status:?}");
        }
    }

    #[test]
    fn roles_and_ownership() {
        assert!(!may(UserRole::Leader, UserStatus::Active, Action::Administer));
        assert!(may(UserRole::Admin, UserStatus::Active, Action::Administer));
        assert!(!may(UserRole::Admin, UserStatus::Banned, Action::Administer));
        let standing = Standing { role: UserRole::Admin, status: UserStatus::Active };
        let actor = Subject { profile_id: Uuid::nil(), standing };
        let other = Resource::Profile(Uuid::max());
        assert!(authorize(&actor, Action::EditOwnProfile, other).is_err());
    }
}
