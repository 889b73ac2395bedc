//! Resources as JSON shows them, with the field names of the schema. Replies give every field; updates may leave out
//! what is null, false or empty.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::time::Timestamp;

/// Longest `content` of a message, in characters; longer ones are `too_large`.
pub const CONTENT_CHARS: usize = 4000;

macro_rules! upper_case_enum {
    ($(#[$doc:meta])* $name:ident ($pg:literal) { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[sqlx(type_name = $pg)]
        pub enum $name {
            $(#[serde(rename = $text)] #[sqlx(rename = $text)] $variant),+
        }

        // By hand: the derive does not see names that come through this macro.
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some([$($text),+])).into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl $name {
            /// The name in the database and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The reverse of `as_str`.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

upper_case_enum! {
    /// What a person may do on the platform; ordered, so `>=` reads as "and up".
    UserRole("user_role") { Applicant = "APPLICANT", Member = "MEMBER", Leader = "LEADER", Admin = "ADMIN" }
}
upper_case_enum! {
    /// Whether a person may act at all.
    UserStatus("user_status") { Pending = "PENDING", Active = "ACTIVE", Suspended = "SUSPENDED", Banned = "BANNED" }
}
upper_case_enum! {
    /// The kind of a conversation.
    ThreadType("thread_type") { Direct = "DIRECT", Group = "GROUP", House = "HOUSE", Announce = "ANNOUNCE" }
}
upper_case_enum! {
    /// Standing of a member within one thread; ordered.
    ThreadRole("thread_role") { Member = "MEMBER", Moderator = "MODERATOR", Admin = "ADMIN" }
}
upper_case_enum! {
    /// What a message row is.
    MessageType("message_type") { Text = "TEXT", Media = "MEDIA", System = "SYSTEM", Deleted = "DELETED" }
}
upper_case_enum! {
    /// Kind of an attached medium.
    MediaType("media_type") { Image = "IMAGE", Video = "VIDEO", Audio = "AUDIO", Document = "DOCUMENT" }
}

/// One message, in full (history, replies, snapshots). Updates use the lean form that `messaging::render` writes.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub id: Uuid,
    pub thread_id: Uuid,
    /// Dense number of messages alone, from 1.
    pub no: i64,
    /// Position of its `message.created` in the thread's stream.
    pub seq: i64,
    pub sender_id: Uuid,
    #[serde(rename = "type")]
    pub kind: MessageType,
    pub content: Option<String>,
    pub media_url: Option<String>,
    pub media_type: Option<MediaType>,
    pub reply_to_id: Option<Uuid>,
    pub mentions: Vec<Uuid>,
    pub nonce: Option<Uuid>,
    pub is_edited: bool,
    pub is_deleted: bool,
    pub is_pinned: bool,
    /// Revision of the content; 1 when first sent.
    pub rev: i32,
    #[schema(value_type = String, format = DateTime)]
    pub sent_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub edited_at: Option<Timestamp>,
    pub reactions: Vec<ReactionSummary>,
}

/// Reactions of one emoji to one message.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReactionSummary {
    pub emoji: String,
    pub count: i32,
    pub mine: bool,
    /// The first 20.
    pub profile_ids: Vec<Uuid>,
}

/// The other person of a DIRECT thread.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub id: Uuid,
    pub display_name: String,
    pub avatar: Option<String>,
}

/// A thread as its member sees it: a row of the `auth` reply, of `threads.list` and of `thread.added`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadRow {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: ThreadType,
    pub name: Option<String>,
    pub peer: Option<Peer>,
    pub role: ThreadRole,
    pub can_send: bool,
    pub is_archived: bool,
    pub member_count: i32,
    pub seq: i64,
    pub no: i64,
    pub last_read_no: i64,
    pub read_rev: i32,
    pub unread: i64,
    pub mentions: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub muted_until: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_message_at: Option<Timestamp>,
    /// Further fields of the schema.
    pub description: Option<String>,
    pub avatar: Option<String>,
    pub is_muted: bool,
    pub house_id: Option<Uuid>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A member of a thread.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadMember {
    pub profile_id: Uuid,
    pub display_name: String,
    pub avatar: Option<String>,
    pub role: ThreadRole,
    pub nickname: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
}

/// A person as others see them.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub id: Uuid,
    pub display_name: String,
    pub pronouns: Option<String>,
    pub bio: Option<String>,
    pub avatar: Option<String>,
    pub cover_image: Option<String>,
    pub ballroom_name: Option<String>,
    pub role: UserRole,
    /// Left out where `privacy.profile` closes the profile to the reader
    pub status: Option<UserStatus>,
    pub house_id: Option<Uuid>,
    #[schema(value_type = Option<Object>)]
    pub social_links: Option<Box<RawValue>>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// `ok` of `message.send`, given after the commit.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendOk {
    pub message_id: Uuid,
    pub seq: i64,
    pub no: i64,
    #[schema(value_type = String, format = DateTime)]
    pub sent_at: Timestamp,
    /// The nonce had been used by this sender in this thread: this is the original.
    pub dup: bool,
}

/// The body of `message.send` and of `POST …/messages` (there without `threadId`, nonce from `Idempotency-Key`).
/// Its schema is in `messaging::schemas`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendBody {
    pub content: Option<String>,
    pub media_url: Option<String>,
    pub media_type: Option<MediaType>,
    pub reply_to_id: Option<Uuid>,
    #[serde(default)]
    pub mentions: Vec<Uuid>,
    pub nonce: Option<Uuid>,
}
