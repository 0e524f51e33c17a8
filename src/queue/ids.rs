//! Names for notifications and jobs.

use uuid::{Builder, Uuid};

use crate::core::time::Time;

/// Makes UUIDv7 (RFC 9562 5.7) of the time that it is told, each greater than the one before, so that
/// names sort in the order of acceptance, also within a millisecond.
#[derive(Debug)]
pub struct Ids {
    last: u128,
    lots: Lots,
}

#[derive(Debug)]
enum Lots {
    Drawn,
    Foretold(u64),
}

impl Ids {
    /// Names that nobody else makes.
    #[must_use]
    pub fn random() -> Self {
        Self { last: 0, lots: Lots::Drawn }
    }

    /// The same names for the same seed and the same times: for a run that is to be repeated.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self { last: 0, lots: Lots::Foretold(seed) }
    }

    /// The next name.
    pub(super) fn next(&mut self, now: Time) -> Uuid {
        let lots = match &mut self.lots {
            // Its lower half is random, but for the two bits of the variant.
            Lots::Drawn => Uuid::now_v7().as_u128(),
            Lots::Foretold(state) => {
                // Two steps of a 64-bit linear congruential generator (Knuth, MMIX).
                let mut step = || {
                    *state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    u128::from(*state >> 24)
                };
                step() << 40 | step()
            }
        };
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&lots.to_be_bytes()[6..]);
        let id = Builder::from_unix_timestamp_millis(now.0, &bytes).into_uuid().as_u128();
        self.last = id.max(self.last + 1);
        Uuid::from_u128(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_version_7_of_their_time_and_grow_also_when_time_stands_or_steps_back() {
        for mut ids in [Ids::random(), Ids::of_seed(1)] {
            let mut last = Uuid::nil();
            for millis in [5, 5, 5, 9, 7, 7, 1 << 40] {
                let id = ids.next(Time(millis));
                assert!(last < id, "{last} {id}");
                assert_eq!(id.get_version_num(), 7);
                last = id;
            }
            assert_eq!(last.get_timestamp().expect("version 7").to_unix().0, (1 << 40) / 1000);
        }
    }

    #[test]
    fn a_seed_foretells_them_and_nothing_else_does() {
        let three = |mut ids: Ids| [1, 1, 2].map(|millis| ids.next(Time(millis)));
        assert_eq!(three(Ids::of_seed(7)), three(Ids::of_seed(7)));
        assert_ne!(three(Ids::of_seed(7)), three(Ids::of_seed(8)));
        assert_ne!(three(Ids::random()), three(Ids::random()));
    }
}
