//! Access tokens and tickets: what is refused, and that a ticket works once.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use haus::identity::keys::Keys;
use haus::identity::tokens::{Claims, Tokens};
use haus::identity::{Access, Identity};
use haus::protocol::ErrorCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::identity::{register, text};
use crate::support::{Database, Node, ROOT_KEY};

fn signing_key(root: &[u8; 32]) -> (EncodingKey, Vec<u8>) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&Keys::derive(root).unwrap().signing_seed).unwrap();
    (EncodingKey::from_ed_der(pair.to_pkcs8().unwrap().as_ref()), pair.public_key().as_ref().to_vec())
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let now = chrono::Utc::now().timestamp();
    let mut claims = json!({"iss": "haus", "aud": "haus", "sub": Uuid::nil(), "sid": Uuid::nil(), "iat": now,
        "exp": now + 60});
    change(&mut claims);
    claims
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

#[test]
fn only_tokens_of_the_right_kind_are_taken() {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let tokens = Tokens::new(&Keys::derive(&ROOT_KEY).unwrap()).unwrap();
    let (key, public) = signing_key(&ROOT_KEY);
    let good = tokens.header();
    let kid = good.kid.clone().unwrap();
    let sign = |header: &Header, claims: &Value| encode(header, claims, &key).unwrap();
    let with = |change: fn(&mut Value)| sign(&good, &claims(change));
    let refused = |name: &str, token: &str| {
        assert!(tokens.verify(token, now_ms).is_err(), "{name} must be refused");
        assert!(tokens.verify(token, now_ms).is_err(), "{name} must be refused again");
    };

    let fine = with(|_| {});
    assert!(tokens.verify(&fine, now_ms).is_ok());
    assert!(tokens.verify(&fine, now_ms).is_ok(), "from the cache");
    assert!(tokens.verify(&fine, now_ms + 61_000).is_err(), "the cache does not outlive the token");

    let none = unsigned(&json!({"alg": "none", "typ": "at+jwt", "kid": kid}), &claims(|_| {}));
    refused("alg none", &format!("{none}."));
    refused("alg none with the good signature", &format!("{none}.{}", fine.rsplit('.').next().unwrap()));
    let mut hmac = Header::new(Algorithm::HS256);
    (hmac.typ, hmac.kid) = (good.typ.clone(), good.kid.clone());
    refused("HS256 with the public key", &encode(&hmac, &claims(|_| {}), &EncodingKey::from_secret(&public)).unwrap());

    for typ in [None, Some("JWT"), Some("rt+jwt")] {
        let header = Header { typ: typ.map(str::to_owned), ..good.clone() };
        refused(&format!("typ {typ:?}"), &sign(&header, &claims(|_| {})));
    }
    for kid in [None, Some(""), Some("0123456789abcdef"), Some("../../etc/passwd")] {
        let header = Header { kid: kid.map(str::to_owned), ..good.clone() };
        refused(&format!("kid {kid:?}"), &sign(&header, &claims(|_| {})));
    }
    refused("another audience", &with(|c| c["aud"] = json!("other")));
    refused("no audience", &with(|c| drop(c.as_object_mut().unwrap().remove("aud"))));
    refused("another issuer", &with(|c| c["iss"] = json!("other")));
    refused("no issuer", &with(|c| drop(c.as_object_mut().unwrap().remove("iss"))));
    refused("no expiry", &with(|c| drop(c.as_object_mut().unwrap().remove("exp"))));
    refused("expired", &with(|c| c["exp"] = json!(chrono::Utc::now().timestamp() - 1)));
    refused("not yet valid", &with(|c| c["nbf"] = json!(chrono::Utc::now().timestamp() + 60)));
    refused("subject is no id", &with(|c| c["sub"] = json!("admin")));
    refused("no session", &with(|c| drop(c.as_object_mut().unwrap().remove("sid"))));

    let (foreign, _) = signing_key(&[8; 32]);
    refused("a foreign key under our kid", &encode(&good, &claims(|_| {}), &foreign).unwrap());
    for end in 0..fine.len() {
        refused(&format!("cut at {end}"), &fine[..end]);
    }
    let (head, signature) = fine.rsplit_once('.').unwrap();
    let other_claims = unsigned(&json!({}), &claims(|c| c["sub"] = json!(Uuid::max())));
    let swapped = format!("{}.{}", head.split('.').next().unwrap(), other_claims.split('.').nth(1).unwrap());
    refused("claims swapped", &format!("{swapped}.{signature}"));
    for odd in ["", ".", "..", "a.b.c", "é.é.é", &"x".repeat(5_000), &format!("{fine} "), &format!("{fine}.x")] {
        refused(&format!("{:.20}", odd), odd);
    }
}

#[test]
fn what_is_issued_says_whom_and_until_when() {
    let tokens = Tokens::new(&Keys::derive(&ROOT_KEY).unwrap()).unwrap();
    let (profile_id, session_id) = (Uuid::now_v7(), Uuid::now_v7());
    let now_ms = chrono::Utc::now().timestamp_millis();
    let token = tokens.issue(profile_id, session_id, now_ms, 90_000).unwrap();
    let access = tokens.verify(&token, now_ms).unwrap();
    assert_eq!((access.profile_id, access.session_id), (profile_id, session_id));
    assert!((now_ms + 90_000..now_ms + 91_000).contains(&access.expires_at_ms));
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let read: Claims = serde_json::from_slice(&body).unwrap();
    assert_eq!((read.sub, read.sid, read.exp * 1000), (profile_id, session_id, access.expires_at_ms));
}

async fn access_of(node: &Node, name: &str) -> Access {
    let answer = register(node, name).await;
    node.identity.verify_access(text(&answer, "accessToken")).unwrap()
}

#[tokio::test]
async fn a_ticket_works_once_whoever_is_first() {
    let database = Database::new().await;
    let nodes = [Node::start(&database, &[]).await, Node::start(&database, &[]).await];
    let access = access_of(&nodes[0], "ana").await;
    let ticket = nodes[0].identity.create_ticket(access).await.unwrap();
    let attempts = (0..100).map(|i| {
        let (identity, ticket): (Arc<Identity>, String) = (Arc::clone(&nodes[i % 2].identity), ticket.clone());
        tokio::spawn(async move { identity.redeem_ticket(&ticket).await })
    });
    let results = futures_util::future::join_all(attempts).await;
    let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 99));
    assert_eq!(good[0].as_ref().unwrap(), &access);
    assert!(bad.iter().all(|refusal| refusal.as_ref().is_err_and(|r| r.code == ErrorCode::Unauthenticated)));
}

#[tokio::test]
async fn tickets_in_one_batch_answer_in_order() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let (ana, bea) = (access_of(&node, "ana").await, access_of(&node, "bea").await);
    let (of_ana, of_bea) =
        (node.identity.create_ticket(ana).await.unwrap(), node.identity.create_ticket(bea).await.unwrap());
    let batch = vec![of_bea.clone(), "unknown".to_owned(), of_ana.clone(), of_ana];
    let answers = node.identity.redeem_tickets(batch).await.unwrap();
    let sessions: Vec<_> = answers.iter().map(|answer| answer.as_ref().ok().map(|access| access.session_id)).collect();
    assert_eq!(sessions, [Some(bea.session_id), None, Some(ana.session_id), None]);
}

#[tokio::test]
async fn a_ticket_ends_with_its_time_and_its_session() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let ana = access_of(&node, "ana").await;
    let late = node.identity.create_ticket(ana).await.unwrap();
    database.run("UPDATE ws_tickets SET expires_at = now() - interval '1 ms'".into()).await;
    assert!(node.identity.redeem_ticket(&late).await.is_err());
    let ticket = node.identity.create_ticket(ana).await.unwrap();
    node.identity.end_session(ana.profile_id, ana.session_id).await.unwrap();
    assert!(node.identity.redeem_ticket(&ticket).await.is_err());
}

#[tokio::test]
async fn people_are_read_in_one_statement_and_in_order() {
    let database = Database::new().await;
    let node = Node::start(&database, &[]).await;
    let (ana, bea) = (access_of(&node, "ana").await, access_of(&node, "bea").await);
    let stranger = Access { session_id: Uuid::now_v7(), ..ana };
    let mixed = Access { profile_id: bea.profile_id, ..ana };
    let people = node.identity.people_now(&[bea, stranger, ana, mixed]).await.unwrap();
    let names: Vec<_> = people.iter().map(|person| person.as_ref().ok().map(|p| p.display_name.clone())).collect();
    assert_eq!(names, [Some("bea".to_owned()), None, Some("ana".to_owned()), None]);
    node.identity.end_session(ana.profile_id, ana.session_id).await.unwrap();
    assert!(node.identity.people_now(&[ana]).await.unwrap()[0].is_err());
    assert!(node.identity.person(&ana).await.is_err(), "the cache forgets an ended session");

    let session_id = node.identity.create_session(bea.profile_id, "cli").await.unwrap();
    let token = node.identity.issue_access(bea.profile_id, session_id, 86_400_000).unwrap();
    assert_eq!(node.call("GET", "/v1/me", Some(&token), None).await.0, 200);
    assert_eq!(node.identity.profile_by_email("BEA@example.org").await.unwrap(), Some(bea.profile_id));
}
