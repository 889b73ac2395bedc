//! Reading JSON from outside, by one written rule (`docs/protocol.md`, *JSON*): an object is written as an object (serde
//! alone would take an array with the fields in their order), and a whole number may be written `7`, `7.0` or `7e0`, as
//! JSON knows one kind of number (RFC 8259, section 6). Unknown fields are refused by the types themselves
//! (`deny_unknown_fields`).

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use std::fmt;

/// Whole numbers up to here are exact as a float (RFC 8259, section 6).
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
/// How serde_json tells its deserializer that raw text is wanted.
const RAW: &str = "$serde_json::private::RawValue";

/// Reads one value; nothing may follow it.
///
/// # Errors
/// Those of `serde_json`; `is_data` tells a value of the wrong shape from text that is no JSON.
pub fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(Strict(&mut input))?;
    input.end()?;
    Ok(value)
}

/// [`from_slice`] of text.
///
/// # Errors
/// As [`from_slice`].
pub fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_json::Error> {
    let mut input = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Strict(&mut input))?;
    input.end()?;
    Ok(value)
}

/// [`from_slice`] that also names where in the value the fault lies: `a.b`, or the empty text for the whole.
///
/// # Errors
/// As [`from_slice`], with the path.
pub fn from_slice_with_path<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (String, serde_json::Error)> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut input)).map_err(|error| {
        let path = error.path().to_string();
        (if path == "." { String::new() } else { path }, error.into_inner())
    })?;
    input.end().map_err(|error| (String::new(), error))?;
    Ok(value)
}

/// Wraps a deserializer, its visitors and everything inside.
struct Strict<D>(D);

macro_rules! forward {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Strict(visitor))
        })+
    };
}

macro_rules! forward_whole {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(Whole(visitor))
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq
        deserialize_map deserialize_identifier deserialize_ignored_any
    }

    forward_whole! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Strict(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        if name == RAW {
            return self.0.deserialize_newtype_struct(name, visitor);
        }
        self.0.deserialize_newtype_struct(name, Strict(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Strict(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Strict(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Strict(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($kind:ty))+) => {
        $(fn $method<E: serde::de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(out)
    }

    visit! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128) visit_f64(f64) visit_str(&str)
        visit_borrowed_str(&'de str) visit_string(String) visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8])
        visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, chosen: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(chosen))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    /// Keys are text, whatever they stand for.
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(value, variant)| (value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Strict(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Strict(visitor))
    }
}

/// A visitor of whole numbers, which also takes one that is written as a float.
struct Whole<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Whole<V> {
    type Value = V::Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(out)
    }

    visit! {
        visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<V::Value, E> {
        match value.fract() == 0.0 && value.abs() <= EXACT_MAX {
            true if value < 0.0 => self.0.visit_i64(value as i64),
            true => self.0.visit_u64(value as u64),
            false => self.0.visit_f64(value),
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::{from_slice, from_slice_with_path, from_str};

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        no: i64,
        ratio: Option<f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Kind {
        #[serde(rename = "GROUP")]
        Group,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        id: Option<u64>,
        kind: Option<Kind>,
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        at: HashMap<String, u32>,
    }

    #[test]
    fn objects_are_objects_at_every_depth() {
        for bad in [
            "[]",
            "[1,null,null,[],{}]",
            r#"{"inner":[1,null]}"#,
            r#"{"list":[[1,2.5]]}"#,
            r#"{"inner":"x"}"#,
            "null",
            "1",
            r#"{"id":1}x"#,
            r#"{"id":1,"id":2}"#,
            r#"{"other":1}"#,
            r#"{"inner":{"no":1,"x":2}}"#,
            r#"{"id":"1"}"#,
            r#"{"id":[1]}"#,
            r#"{"id":{}}"#,
            r#"{"id":true}"#,
            r#"{"kind":["GROUP"]}"#,
            r#"{"kind":"Group"}"#,
        ] {
            assert!(from_str::<Outer>(bad).is_err(), "{bad}");
        }
        let good = from_str::<Outer>(r#"{"id":null,"kind":"GROUP","inner":{"no":-3,"ratio":2},"list":[{"no":1}]}"#);
        let inner = Inner { no: -3, ratio: Some(2.0) };
        let list = vec![Inner { no: 1, ratio: None }];
        let expected = Outer { id: None, kind: Some(Kind::Group), inner: Some(inner), list, at: HashMap::new() };
        assert_eq!(good.ok(), Some(expected));
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        for (text, id) in [("7", 7), ("7.0", 7), ("7e0", 7), ("0.0", 0), ("-0.0", 0), ("281474976710656.0", 1 << 48)] {
            assert_eq!(
                from_str::<Outer>(&format!("{{\"id\":{text}}}")).ok().and_then(|outer| outer.id),
                Some(id),
                "{text}"
            );
        }
        for bad in ["7.5", "-1", "-1.0", "1e300", "18446744073709551616", "9007199254740993e1"] {
            assert!(from_str::<Outer>(&format!("{{\"id\":{bad}}}")).is_err(), "{bad}");
        }
        assert_eq!(
            from_str::<Outer>(r#"{"inner":{"no":-2.0,"ratio":0.5}}"#).ok().and_then(|o| o.inner).map(|i| i.no),
            Some(-2)
        );
        assert_eq!(from_str::<Outer>(r#"{"at":{"a":3.0}}"#).ok().map(|outer| outer.at["a"]), Some(3));
        assert_eq!(from_slice::<Vec<u8>>(b"[1.0,2]").ok(), Some(vec![1, 2]));
    }

    #[test]
    fn raw_text_stays_raw_and_faults_have_a_path() {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(borrow)]
            d: Option<&'a RawValue>,
        }
        let frame: Frame<'_> = from_slice(br#"{"d":{"a": 1.0}}"#).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(frame.d.map(RawValue::get), Some(r#"{"a": 1.0}"#));
        let path = |text: &str| from_slice_with_path::<Outer>(text.as_bytes()).err().map(|(path, _)| path);
        assert_eq!(path(r#"{"inner":{"no":"x"}}"#).as_deref(), Some("inner.no"));
        assert_eq!(path(r#"{"list":[{"no":1},[]]}"#).as_deref(), Some("list[1]"));
        assert_eq!(path("[]").as_deref(), Some(""));
    }
}
