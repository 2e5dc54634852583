//! Where the files of a tar archive stand in it.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::io::Read;

/// The most entries that are remembered; pieces beyond are placed by the last one that was.
const ENTRIES_MAX: usize = 1_000_000;

/// The places of an archive's entries, ascending, each with the hash of its name: a million names would not fit into memory, and
/// two with one hash cost a few bytes.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: Vec<(u64, u64)>,
}

impl Index {
    /// Reads the headers of a plain tar archive.
    ///
    /// # Errors
    /// It is no tar archive, or cannot be read.
    pub(super) fn read(tar: impl Read) -> io::Result<Self> {
        let mut archive = tar::Archive::new(tar);
        let places = archive.entries()?.take(ENTRIES_MAX).map(|entry| {
            let entry = entry?;
            Ok((entry.raw_header_position(), hash(&entry.path_bytes())))
        });
        Ok(Self { places: places.collect::<io::Result<_>>()? })
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Finds the place in the old archive that belongs to a place in the new one.
#[derive(Debug)]
pub(super) struct Map {
    /// Places in the new archive, and in the old one, of the entries that both have. Ascending in the new one.
    both: Vec<(u64, u64)>,
}

impl Map {
    pub(super) fn new(old: &Index, new: &Index) -> Self {
        let old: HashMap<u64, u64> = old.places.iter().map(|(at, name)| (*name, *at)).collect();
        let both = |(at, name): &(u64, u64)| old.get(name).map(|old_at| (*at, *old_at));
        Self { both: new.places.iter().filter_map(both).collect() }
    }

    /// Where in the old archive stands what stands at `at` in the new one, as far as that can be told: as far behind
    /// the nearest entry before it that both have.
    pub(super) fn old_place(&self, at: u64) -> u64 {
        match self.both.partition_point(|(new_at, _)| *new_at <= at).checked_sub(1) {
            Some(before) => {
                let (new_at, old_at) = self.both[before];
                // What is new since then has no place in the old archive; it must not push the region past its end.
                let next_old = self.both.get(before + 1).map_or(u64::MAX, |(_, next)| (*next).max(old_at));
                (old_at + (at - new_at)).min(next_old)
            }
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(places: &[(u64, &str)]) -> Index {
        Index { places: places.iter().map(|(at, name)| (*at, hash(name.as_bytes()))).collect() }
    }

    #[test]
    fn places_follow_the_files() {
        let old = index(&[(0, "a"), (100, "b"), (200, "d")]);
        // c, 1000 bytes, came in between; a grew.
        let new = index(&[(0, "a"), (150, "b"), (250, "c"), (1250, "d")]);
        let map = Map::new(&old, &new);
        assert_eq!(map.old_place(0), 0);
        assert_eq!(map.old_place(120), 100, "no further than the next file that both have");
        assert_eq!(map.old_place(160), 110);
        assert_eq!(map.old_place(900), 200);
        assert_eq!(map.old_place(1300), 250);
        assert_eq!(Map::new(&index(&[]), &new).old_place(900), 0);
    }
}
