//! Fair shares of the queue of sends: how much one person may hold of it, and whose turn it is. Pure.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

/// A person may hold up to a quarter of what is free. However many flood, something stays free for who comes next: with n
/// of them each ends at 1/(n + 4) of the queue, and as much is left.
const PART_OF_FREE: usize = 4;

/// What each person holds of a queue of so many places and bytes.
pub struct Shares {
    most_sends: usize,
    most_bytes: usize,
    sends: usize,
    bytes: usize,
    people: HashMap<Uuid, (usize, usize)>,
}

impl Shares {
    pub fn new(most_sends: usize, most_bytes: usize) -> Self {
        Self { most_sends, most_bytes, sends: 0, bytes: 0, people: HashMap::new() }
    }

    /// Takes a place of `size` bytes for `person`; false when that would be more than its part.
    pub fn enter(&mut self, person: Uuid, size: usize) -> bool {
        let (sends, bytes) = self.people.get(&person).copied().unwrap_or_default();
        let free_sends = self.most_sends.saturating_sub(self.sends);
        let free_bytes = self.most_bytes.saturating_sub(self.bytes);
        if sends >= free_sends.div_ceil(PART_OF_FREE) || bytes + size > free_bytes.div_ceil(PART_OF_FREE) {
            return false;
        }
        self.people.insert(person, (sends + 1, bytes + size));
        self.sends += 1;
        self.bytes += size;
        true
    }

    /// Gives the place back.
    pub fn leave(&mut self, person: Uuid, size: usize) {
        self.sends -= 1;
        self.bytes -= size;
        let Some(held) = self.people.get_mut(&person) else { return };
        *held = (held.0.saturating_sub(1), held.1.saturating_sub(size));
        if held.0 == 0 {
            self.people.remove(&person);
        }
    }

    /// Places taken.
    pub fn sends(&self) -> usize {
        self.sends
    }
}

/// Threads that may go, in turns of people: each turn is one thread of the next person. The thread counts as that of whose
/// send stands first in it.
#[derive(Default)]
pub struct Turns {
    ring: VecDeque<Uuid>,
    threads: HashMap<Uuid, VecDeque<Uuid>>,
}

impl Turns {
    pub fn push(&mut self, person: Uuid, thread: Uuid) {
        let threads = self.threads.entry(person).or_default();
        threads.push_back(thread);
        if threads.len() == 1 {
            self.ring.push_back(person);
        }
    }

    /// The next thread.
    pub fn pop(&mut self) -> Option<Uuid> {
        let person = self.ring.pop_front()?;
        let threads = self.threads.get_mut(&person)?;
        let thread = threads.pop_front();
        if threads.is_empty() {
            self.threads.remove(&person);
        } else {
            self.ring.push_back(person);
        }
        thread
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether somebody else has a thread here; each person stands in the ring once.
    pub fn has_other_than(&self, person: Uuid) -> bool {
        self.ring.len() > 1 || self.ring.front().is_some_and(|next| *next != person)
    }

    /// Keeps the threads that `keep`.
    pub fn retain(&mut self, keep: impl Fn(&Uuid) -> bool) {
        self.threads.retain(|_, threads| {
            threads.retain(|thread| keep(thread));
            !threads.is_empty()
        });
        self.ring.retain(|person| self.threads.contains_key(person));
    }
}

#[cfg(test)]
mod tests {
    use super::{Shares, Turns};
    use uuid::Uuid;

    fn id(n: usize) -> Uuid {
        Uuid::from_u128(n as u128 + 1)
    }

    #[test]
    fn however_many_flood_a_newcomer_finds_a_place() {
        for flooders in [1, 2, 16, 100] {
            let mut by_number = Shares::new(20_000, usize::MAX);
            let mut by_size = Shares::new(20_000, 64 << 20);
            for _ in 0..20_000 {
                for person in 0..flooders {
                    by_number.enter(id(person), 256);
                    by_size.enter(id(person), 16_256);
                }
            }
            let left = 20_000 - by_number.sends();
            assert!(left * (flooders + 5) >= 20_000, "{left} left beside {flooders}");
            assert!(by_number.enter(id(flooders), 256) && by_size.enter(id(flooders), 16_256), "{flooders}");
            assert!(!by_number.enter(id(0), 256) && !by_size.enter(id(0), 16_256), "{flooders}");
        }
    }

    #[test]
    fn places_come_back_and_nothing_is_remembered() {
        let mut shares = Shares::new(8, 1000);
        assert!(shares.enter(id(0), 100) && shares.enter(id(0), 100));
        assert!(!shares.enter(id(0), 100), "a quarter of the 800 bytes that are free");
        shares.leave(id(0), 100);
        assert!(shares.enter(id(0), 100));
        shares.leave(id(0), 100);
        shares.leave(id(0), 100);
        assert!(shares.people.is_empty() && shares.sends() == 0 && shares.bytes == 0);
    }

    #[test]
    fn turns_go_round_the_people() {
        let mut turns = Turns::default();
        (0..3).for_each(|thread| turns.push(id(0), id(10 + thread)));
        turns.push(id(1), id(20));
        turns.push(id(2), id(30));
        turns.push(id(2), id(31));
        turns.retain(|thread| *thread != id(11));
        let order: Vec<Uuid> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [id(10), id(20), id(30), id(12), id(31)]);
        assert!(turns.is_empty() && turns.threads.is_empty());
    }
}
