//! Bodies of threads and messages as JSON Schema, where more is to be said than a derive can: by the constants that the
//! checks use.

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Ref, Schema,
    SchemaFormat, SchemaType, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::send::{MEDIA_URL_BYTES, MENTIONS};
use super::threads::{AVATAR_BYTES, DESCRIPTION_CHARS, MEMBERS_PER_CALL, NAME_CHARS, NewThread, SLOW_MODE_S};
use crate::protocol::types::{CONTENT_CHARS, SendBody, ThreadType};
use crate::text::schema::{clearable, link, name, paragraph, visible};

/// `min` to `max` ids.
pub fn uuids(min: usize, max: usize) -> Array {
    ArrayBuilder::new().items(uuid()).min_items(Some(min)).max_items(Some(max)).build()
}

fn uuid() -> Object {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))).build()
}

fn null() -> Object {
    ObjectBuilder::new().schema_type(Type::Null).build()
}

pub(super) fn thread_name_or_null() -> Object {
    clearable(name(NAME_CHARS))
}

pub(super) fn thread_description() -> Object {
    clearable(paragraph(DESCRIPTION_CHARS))
}

pub(super) fn avatar() -> Object {
    clearable(link(AVATAR_BYTES))
}

pub(super) fn slow_mode() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Integer, Type::Null]))
        .minimum(Some(0))
        .maximum(Some(SLOW_MODE_S))
        .build()
}

impl PartialSchema for NewThread {
    fn schema() -> RefOr<Schema> {
        let of = |kind: ThreadType| {
            let mut others = if kind == ThreadType::Direct { uuids(1, 1) } else { uuids(0, MEMBERS_PER_CALL - 1) };
            let (title, members) = match kind {
                ThreadType::Direct => ("DirectThread", "The other person"),
                ThreadType::Group => ("GroupThread", "Besides the creator"),
                ThreadType::House => ("HouseThread", "Besides the creator"),
                ThreadType::Announce => ("AnnounceThread", "Besides the creator"),
            };
            others.description = Some(members.to_owned());
            let body = ObjectBuilder::new()
                .title(Some(title))
                .property("type", ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind.as_str()])))
                .required("type")
                .property("memberIds", others)
                .property("description", thread_description())
                .additional_properties(Some(AdditionalProperties::FreeForm(false)));
            let house = || clearable(uuid());
            match kind {
                ThreadType::Direct => body
                    .required("memberIds")
                    .property(
                        "name",
                        ObjectBuilder::new()
                            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
                            .description(Some("Not kept: a DIRECT thread is called after the other person")),
                    )
                    .property("houseId", null()),
                ThreadType::Group => {
                    body.property("name", name(NAME_CHARS)).required("name").property("houseId", null())
                }
                ThreadType::House => body
                    .property("name", name(NAME_CHARS))
                    .required("name")
                    .property("houseId", uuid())
                    .required("houseId"),
                ThreadType::Announce => {
                    body.property("name", name(NAME_CHARS)).required("name").property("houseId", house())
                }
            }
        };
        let kinds = [ThreadType::Direct, ThreadType::Group, ThreadType::House, ThreadType::Announce];
        kinds.into_iter().fold(OneOfBuilder::new(), |all, kind| all.item(of(kind))).into()
    }
}

impl ToSchema for NewThread {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("NewThread")
    }
}

impl PartialSchema for SendBody {
    fn schema() -> RefOr<Schema> {
        let text = visible(CONTENT_CHARS);
        let media = || Ref::from_schema_name("MediaType");
        let body = |title| {
            ObjectBuilder::new()
                .title(Some(title))
                .property("nonce", uuid())
                .required("nonce")
                .property("replyToId", clearable(uuid()))
                .property("mentions", uuids(0, MENTIONS))
                .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        };
        // Beside a medium the text may be missing, null or empty.
        let caption = Extensions::from_iter([("anyOf", json!([{"maxLength": 0}, text]))]);
        let caption = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .extensions(Some(caption));
        OneOfBuilder::new()
            .item(
                body("TextMessage")
                    .property("content", text)
                    .required("content")
                    .property("mediaUrl", null())
                    .property("mediaType", null()),
            )
            .item(
                body("MediaMessage")
                    .property("content", caption)
                    .property("mediaUrl", link(MEDIA_URL_BYTES))
                    .required("mediaUrl")
                    .property("mediaType", media())
                    .required("mediaType"),
            )
            .into()
    }
}

impl ToSchema for SendBody {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("SendBody")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let media = crate::protocol::types::MediaType::schema();
        schemas.push(("MediaType".to_owned(), media));
    }
}
