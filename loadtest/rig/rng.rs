//! Seeded choice: SplitMix64 (Steele, Lea and Flood, 2014). The same seed gives the same schedule everywhere;
//! not for secrets.

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of `seed`; streams of `(seed, lane)` pairs are unrelated.
    pub fn new(seed: u64, lane: u64) -> Self {
        let mut rng = Self { state: seed ^ lane.wrapping_mul(0xd134_2543_de82_ef95) };
        rng.next_u64();
        rng
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 when `limit` is 0. The bias of the remainder does not matter at these sizes.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64().checked_rem(limit).unwrap_or(0)
    }

    /// A number in `from..to`; `from` when the range is empty.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from))
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = self.below(items.len() as u64);
        items.get(usize::try_from(index).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_seed_replays_and_lanes_differ() {
        let draw = |seed, lane| -> Vec<u64> {
            let mut rng = Rng::new(seed, lane);
            (0..8).map(|_| rng.between(10, 1000)).collect()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
        assert!(draw(7, 1).iter().all(|number| (10..1000).contains(number)));
    }

    #[test]
    fn empty_choices_are_harmless() {
        let mut rng = Rng::new(1, 1);
        assert_eq!((rng.below(0), rng.between(5, 5), rng.pick::<u8>(&[])), (0, 5, None));
    }
}
