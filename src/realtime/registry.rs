//! Who is connected here: sessions by profile, for limits and revocation. A `dashmap`, off the fan-out path.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dashmap::DashMap;
use uuid::Uuid;

use super::inbox::SessionAddr;

/// One session.
#[derive(Debug, Clone, Copy)]
struct Registered {
    addr: SessionAddr,
    /// The signed-in session (`sid`) this socket belongs to; several sockets may share one.
    session_id: Uuid,
    /// The higher, the later it became live (see `SessionBook`); 0 while `auth` is being answered: a revocation finds it, and it counts for nothing.
    place: u64,
}

/// The entry of a session whose `auth` is being answered, until [`Registry::settle`]: whatever ends the answering takes
/// the entry with it. Afterwards it is the session's, and its worker's to remove.
pub struct Registration {
    /// None: settled.
    registry: Option<Arc<Registry>>,
    profile_id: Uuid,
    session_id: Uuid,
    addr: SessionAddr,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(registry) = &self.registry {
            registry.abandon(self);
        }
    }
}

/// Sessions of this node.
#[derive(Default)]
pub struct Registry {
    by_profile: DashMap<Uuid, Vec<Registered>>,
    /// The last place given.
    place: AtomicU64,
    /// Other nodes are told what changes.
    is_shared: AtomicBool,
    /// Profiles whose live sessions are others than was told.
    changed: Mutex<HashSet<Uuid>>,
}

impl Registry {
    /// Adds a session whose `auth` is being answered.
    pub fn add(self: &Arc<Self>, profile_id: Uuid, session_id: Uuid, addr: SessionAddr) -> Registration {
        let mut sessions = self.by_profile.entry(profile_id).or_insert_with(|| Vec::with_capacity(1));
        sessions.push(Registered { addr, session_id, place: 0 });
        Registration { registry: Some(self.clone()), profile_id, session_id, addr }
    }

    /// The session is live, and holds its entry from now on. Returns the oldest ones of the profile above `most`, which
    /// are to be closed (4409).
    pub fn settle(&self, mut registration: Registration, most: usize) -> Vec<SessionAddr> {
        registration.registry = None;
        let Some(mut sessions) = self.by_profile.get_mut(&registration.profile_id) else { return Vec::new() };
        let place = self.next_place();
        sessions.iter_mut().filter(|session| session.addr == registration.addr).for_each(|own| own.place = place);
        let mut live: Vec<&Registered> = sessions.iter().filter(|session| session.place > 0).collect();
        let above = live.len().saturating_sub(most.max(1));
        if above > 0 {
            live.sort_unstable_by_key(|session| session.place);
        }
        let replaced = live[..above].iter().map(|old| old.addr).collect();
        drop(sessions);
        self.note(registration.profile_id);
        replaced
    }

    /// Microseconds since 1970, or one more than the last.
    fn next_place(&self) -> u64 {
        let now_us = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_micros() as u64);
        let later = |last: u64| Some(now_us.max(last + 1));
        match self.place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later) {
            Ok(last) | Err(last) => now_us.max(last + 1),
        }
    }

    fn note(&self, profile_id: Uuid) {
        if self.is_shared.load(Ordering::Relaxed) {
            self.changed().insert(profile_id);
        }
    }

    fn changed(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to note what other nodes are to be told.
    pub fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
        self.change_all();
    }

    /// All of it is to be told.
    pub fn change_all(&self) {
        let all: Vec<Uuid> = self.by_profile.iter().map(|sessions| *sessions.key()).collect();
        self.changed().extend(all);
    }

    /// These are to be told once more.
    pub fn put_back(&self, profiles: &[Uuid]) {
        self.changed().extend(profiles);
    }

    /// At most `most` profiles that changed, with the places of their live sessions.
    pub fn take_changed(&self, most: usize) -> Vec<(Uuid, Vec<u64>)> {
        let taken: Vec<Uuid> = {
            let mut changed = self.changed();
            let taken: Vec<Uuid> = changed.iter().copied().take(most).collect();
            taken.iter().for_each(|profile_id| {
                changed.remove(profile_id);
            });
            taken
        };
        let places = |profile_id| {
            let sessions = self.by_profile.get(&profile_id);
            let live = sessions.iter().flat_map(|sessions| sessions.iter()).map(|session| session.place);
            live.filter(|place| *place > 0).collect()
        };
        taken.into_iter().map(|profile_id| (profile_id, places(profile_id))).collect()
    }

    /// The session at a place.
    pub fn at(&self, profile_id: Uuid, place: u64) -> Option<SessionAddr> {
        let sessions = self.by_profile.get(&profile_id)?;
        sessions.iter().find(|session| session.place == place).map(|session| session.addr)
    }

    /// A session has ended.
    pub fn remove(&self, profile_id: Uuid, addr: SessionAddr) {
        if let Some(mut sessions) = self.by_profile.get_mut(&profile_id) {
            sessions.retain(|session| session.addr != addr);
        }
        self.by_profile.remove_if(&profile_id, |_, sessions| sessions.is_empty());
        self.note(profile_id);
    }

    /// A worker has lost all its sessions.
    pub fn forget_worker(&self, worker: u16) {
        let mut changed = Vec::new();
        self.by_profile.retain(|profile_id, sessions| {
            let before = sessions.len();
            sessions.retain(|session| session.addr.worker != worker);
            if sessions.len() < before {
                changed.push(*profile_id);
            }
            !sessions.is_empty()
        });
        // Afterwards: what is taken and told meanwhile would still be with the lost ones.
        changed.into_iter().for_each(|profile_id| self.note(profile_id));
    }

    /// A live socket goes over to another signed-in session of its profile, with the place it has.
    pub fn take_place(&self, mut registration: Registration) {
        registration.registry = None;
        let Some(mut sessions) = self.by_profile.get_mut(&registration.profile_id) else { return };
        let is_new = |session: &Registered| session.place == 0 && session.session_id == registration.session_id;
        let own = |session: &Registered| session.addr == registration.addr;
        let place = sessions.iter().filter(|session| own(session)).map(|session| session.place).max().unwrap_or(0);
        sessions.retain(|session| !own(session) || is_new(session));
        sessions.iter_mut().filter(|session| own(session)).for_each(|new| new.place = place);
    }

    /// What was being answered came to nothing; a live session of the same socket stays.
    fn abandon(&self, registration: &Registration) {
        let Registration { profile_id, session_id, addr, .. } = registration;
        if let Some(mut sessions) = self.by_profile.get_mut(profile_id) {
            sessions.retain(|session| session.addr != *addr || session.session_id != *session_id || session.place > 0);
        }
        self.by_profile.remove_if(profile_id, |_, sessions| sessions.is_empty());
        self.note(*profile_id);
    }

    /// Sessions here, those being authenticated included.
    pub fn len(&self) -> usize {
        self.by_profile.iter().map(|sessions| sessions.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.by_profile.is_empty()
    }

    /// Sockets of a profile, or of one signed-in session of it.
    pub fn of(&self, profile_id: Uuid, session_id: Option<Uuid>) -> Vec<SessionAddr> {
        self.by_profile.get(&profile_id).map_or_else(Vec::new, |sessions| {
            let wanted = |session: &&Registered| session_id.is_none_or(|id| id == session.session_id);
            sessions.iter().filter(wanted).map(|session| session.addr).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Registry;
    use crate::realtime::inbox::SessionAddr;
    use std::sync::Arc;
    use uuid::Uuid;

    #[test]
    fn the_oldest_goes_first_and_empty_profiles_are_forgotten() {
        let registry = Arc::new(Registry::default());
        let (profile, session_id) = (Uuid::now_v7(), Uuid::now_v7());
        let at = |slot| SessionAddr { worker: 0, slot, generation: 0 };
        let one = registry.add(profile, session_id, at(1));
        let ghost = registry.add(profile, session_id, at(9));
        assert!(registry.settle(one, 2).is_empty());
        let two = registry.add(profile, Uuid::now_v7(), at(2));
        assert!(registry.settle(two, 2).is_empty(), "one that is not live yet counts for nothing");
        let three = registry.add(profile, session_id, at(3));
        assert_eq!(registry.settle(three, 2), [at(1)]);
        assert_eq!(registry.of(profile, Some(session_id)), [at(1), at(9), at(3)], "a revocation finds all of them");
        drop(ghost);
        let moved = registry.add(profile, Uuid::from_u128(7), at(3));
        registry.take_place(moved);
        assert_eq!(registry.of(profile, Some(Uuid::from_u128(7))), [at(3)], "it belongs to another session now");
        assert_eq!(registry.of(profile, Some(session_id)), [at(1)]);
        let refused = registry.add(profile, session_id, at(3));
        drop(refused);
        assert_eq!(registry.of(profile, Some(Uuid::from_u128(7))), [at(3)], "a refused refresh changes nothing");
        registry.remove(profile, at(1));
        assert_eq!(registry.of(profile, None), [at(2), at(3)]);
        registry.forget_worker(1);
        assert_eq!(registry.len(), 2);
        registry.forget_worker(0);
        assert!(registry.is_empty());
    }

    #[test]
    fn a_lost_worker_changes_those_who_had_sessions_there() {
        let registry = Arc::new(Registry::default());
        registry.share();
        let [lost, both, other] = [1, 2, 3].map(Uuid::from_u128);
        for (slot, (profile, worker)) in [(lost, 1), (both, 1), (both, 0), (other, 0)].into_iter().enumerate() {
            let addr = SessionAddr { worker, slot: slot as u32, generation: 0 };
            let registration = registry.add(profile, Uuid::now_v7(), addr);
            registry.settle(registration, 9);
        }
        assert_eq!(registry.take_changed(9).len(), 3);
        registry.forget_worker(1);
        let mut told = registry.take_changed(9);
        told.sort_unstable();
        let told: Vec<(Uuid, usize)> = told.into_iter().map(|(profile, places)| (profile, places.len())).collect();
        assert_eq!(told, [(lost, 0), (both, 1)]);
    }
}
