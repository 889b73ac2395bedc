//! Nodes tell each other through Redis which sessions each profile has with them, so that the cap per profile holds over all
//! of them. A background task does it; no connect waits for it. While Redis is away each node counts alone; when it is back,
//! everything is told anew. What is told is a state, not a change: told twice, it is the same.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{ClientLike, LuaInterface};
use tokio::time::timeout;
use uuid::Uuid;

use super::shared::{CONNECT, EXCHANGE, OPEN, client};
use crate::deployment::Deployment;

/// Profiles in one call of the script, and in one exchange; more wait for the next.
const PROFILES_A_CALL: usize = 256;
const PROFILES: usize = 2_048;
/// Sessions of a node that has said nothing for so long count no more, milliseconds.
const LEASE_MS: u64 = 6_000;
/// What a profile's sessions are is kept so long, milliseconds, and told anew well before.
const KEEP_MS: u64 = 3_600_000;
const REPEAT: Duration = Duration::from_secs(1_200);
/// What a node is to close waits for it so long, milliseconds, and so much of it is in one answer.
const MAIL_MS: u64 = 60_000;
const MAIL: usize = 1_024;

/// The sessions of this node. Each live one has a place: the later it became live, the higher, on the clock all nodes share
/// (microseconds since 1970), and different from all others of its node.
pub trait SessionBook: Send + Sync + 'static {
    /// At most `most` profiles whose sessions are others than told, each with the places of those it has.
    fn take_changed(&self, most: usize) -> Vec<(Uuid, Vec<u64>)>;
    /// These could not be told.
    fn put_back(&self, profiles: &[Uuid]);
    /// Nothing that was told counts any more.
    fn change_all(&self);
    /// This session is one too many. May be said more than once.
    fn replace(&self, profile_id: Uuid, place: u64);
}

/// Says that this node lives, and takes what it was sent, which stays there until the next call says that it was heard: an
/// answer may be lost. `KEYS`: lease, mail (a set); `ARGV`: life of the lease, most to take, then what was heard. The first
/// of the answers is 0 where the lease had run out.
const LIVES: &str = r"
local answer = {tostring(redis.call('EXISTS', KEYS[1]))}
redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
for i = 3, #ARGV do redis.call('SREM', KEYS[2], ARGV[i]) end
for _, mail in ipairs(redis.call('SRANDMEMBER', KEYS[2], ARGV[2])) do answer[#answer + 1] = mail end
return answer";

/// Writes what sessions some profiles have with this node, and sends word of each that is one too many to the node it is
/// with. `KEYS`: the profiles' hashes; `ARGV`: this node, the cap, the beginnings of leases and of mail, how long hashes and
/// mail are kept, then places and profile for each key.
const TELL: &str = r"
local own, most = ARGV[1], tonumber(ARGV[2])
local alive = {[own] = true}
for i, key in ipairs(KEYS) do
  local places, profile = ARGV[5 + 2 * i], ARGV[6 + 2 * i]
  if places == '' then
    redis.call('HDEL', key, own)
  else
    redis.call('HSET', key, own, places)
    redis.call('PEXPIRE', key, ARGV[5])
    if redis.call('HLEN', key) > 1 then
      local all, held = {}, redis.call('HGETALL', key)
      for f = 1, #held, 2 do
        local node = held[f]
        if alive[node] == nil then alive[node] = redis.call('EXISTS', ARGV[3] .. node) == 1 end
        if alive[node] then
          for place in string.gmatch(held[f + 1], '%d+') do all[#all + 1] = {tonumber(place), place, node} end
        else
          redis.call('HDEL', key, node)
        end
      end
      table.sort(all, function(a, b) return a[1] < b[1] end)
      for j = 1, #all - most do
        local mail = ARGV[4] .. all[j][3]
        redis.call('SADD', mail, profile .. ' ' .. all[j][2])
        redis.call('PEXPIRE', mail, ARGV[6])
      end
    end
  end
end
return #KEYS";

/// Shares the sessions of `book` with the other nodes of the deployment, at most `most` a profile, on the current runtime
/// until the book is gone.
///
/// # Errors
/// When `url` is no Redis URL, or `ca` holds no certificate.
pub fn share_sessions(
    url: &str,
    ca: Option<&[u8]>,
    deployment: Arc<Deployment>,
    book: Weak<dyn SessionBook>,
    most: usize,
) -> Result<(), fred::error::Error> {
    let names = Names { deployment, node: Uuid::new_v4().simple().to_string() };
    tokio::spawn(exchange(client(url, ca)?, names, book, most));
    Ok(())
}

struct Names {
    deployment: Arc<Deployment>,
    /// This run of this node.
    node: String,
}

async fn exchange(client: Client, names: Names, book: Weak<dyn SessionBook>, most: usize) {
    let connection = client.connect();
    let mut pause = EXCHANGE;
    let mut told_all = Instant::now();
    let mut heard = Vec::new();
    loop {
        tokio::time::sleep(pause).await;
        let Some(book) = book.upgrade() else { break };
        pause = EXCHANGE;
        if told_all.elapsed() >= REPEAT {
            told_all = Instant::now();
            book.change_all();
        }
        if let Err(error) = once(&client, &names, book.as_ref(), most, &mut heard).await {
            tracing::debug!(error, "sessions are counted by this node alone");
            pause = OPEN;
        }
    }
    let _ = timeout(CONNECT, client.quit()).await;
    connection.abort();
}

/// One exchange. `heard`: the mail of the last answer, taken off with the next call that gets one.
async fn once(
    client: &Client,
    names: &Names,
    book: &dyn SessionBook,
    most: usize,
    heard: &mut Vec<String>,
) -> Result<(), String> {
    // Of the present epoch: after a change nothing is there, and everything is told anew.
    let (prefix, node) = (names.deployment.prefix(), &names.node);
    let keys = vec![format!("{prefix}node:{node}"), format!("{prefix}mail:{node}")];
    let arguments = [LEASE_MS.to_string(), MAIL.to_string()].into_iter().chain(heard.iter().cloned());
    let mut mail: Vec<String> = ask(client.eval(LIVES, keys, arguments.collect::<Vec<_>>())).await?;
    if !mail.is_empty() && mail.remove(0) == "0" {
        // New here, or away for so long that the others have struck this node off, or a Redis that has forgotten.
        book.change_all();
    }
    for (profile_id, place) in mail.iter().filter_map(|one| one.split_once(' ')) {
        if let (Ok(profile_id), Ok(place)) = (Uuid::parse_str(profile_id), place.parse()) {
            book.replace(profile_id, place);
        }
    }
    *heard = mail;
    let changed = book.take_changed(PROFILES);
    let mut calls = changed.chunks(PROFILES_A_CALL);
    while let Some(call) = calls.next() {
        let keys: Vec<String> = call.iter().map(|(profile_id, _)| format!("{prefix}sessions:{profile_id}")).collect();
        let mut arguments = vec![
            node.clone(),
            most.to_string(),
            format!("{prefix}node:"),
            format!("{prefix}mail:"),
            KEEP_MS.to_string(),
            MAIL_MS.to_string(),
        ];
        for (profile_id, places) in call {
            arguments.push(places.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
            arguments.push(profile_id.to_string());
        }
        if let Err(error) = ask::<i64>(client.eval(TELL, keys, arguments)).await {
            let untold: Vec<Uuid> = call.iter().chain(calls.flatten()).map(|(profile_id, _)| *profile_id).collect();
            book.put_back(&untold);
            return Err(error);
        }
    }
    Ok(())
}

async fn ask<T>(call: impl Future<Output = Result<T, fred::error::Error>>) -> Result<T, String> {
    match timeout(CONNECT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
