//! Numbered places whose keys are never valid for a later tenant.

/// Things with keys. A key holds the place in its lower half and counts the place's tenants in the upper.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    length: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            length: 0,
        }
    }
}

impl<T> Slab<T> {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn insert(&mut self, value: T) -> u64 {
        self.length += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (tenant, slot) = &mut self.places[place as usize];
        *slot = Some(value);
        u64::from(*tenant) << 32 | u64::from(place)
    }

    pub fn get(&self, key: u64) -> Option<&T> {
        let (tenant, value) = self.places.get(key as u32 as usize)?;
        if u64::from(*tenant) == key >> 32 {
            value.as_ref()
        } else {
            None
        }
    }

    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (tenant, value) = self.places.get_mut(key as u32 as usize)?;
        if u64::from(*tenant) == key >> 32 {
            value.as_mut()
        } else {
            None
        }
    }

    /// Takes the value out for a while; its place stays reserved.
    pub fn lend(&mut self, key: u64) -> Option<T> {
        let (tenant, value) = self.places.get_mut(key as u32 as usize)?;
        if u64::from(*tenant) == key >> 32 {
            value.take()
        } else {
            None
        }
    }

    /// Puts a lent value back.
    #[inline(always)]
    pub fn give_back(&mut self, key: u64, value: T) {
        if let Some((_, slot)) = self.places.get_mut(key as u32 as usize) {
            *slot = Some(value);
        }
    }

    /// Frees the place of a lent value. The key is never valid again.
    pub fn vacate(&mut self, key: u64) {
        if let Some((tenant, _)) = self.places.get_mut(key as u32 as usize) {
            // The top of the range is left to keys that are no place.
            *tenant = (*tenant + 1) % (u32::MAX - 1);
            self.free.push(key as u32);
            self.length -= 1;
        }
    }

    /// All that are not lent, with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(place, (tenant, value))| {
            let value = value.as_ref()?;
            Some((u64::from(*tenant) << 32 | place as u64, value))
        })
    }

    pub fn keys(&self) -> Vec<u64> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_tenant() {
        let mut slab = Slab::default();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_eq!(
            (slab.len(), slab.get_mut(a).copied(), slab.get(b).copied()),
            (2, Some('a'), Some('b'))
        );
        assert_eq!(
            (slab.lend(a), slab.lend(a), slab.len()),
            (Some('a'), None, 2)
        );
        slab.give_back(a, 'A');
        assert_eq!(slab.lend(a), Some('A'));
        slab.vacate(a);
        let c = slab.insert('c');
        assert_eq!((slab.get(a), slab.get(c)), (None, Some(&'c')));
        assert_eq!((c as u32, slab.keys()), (a as u32, vec![c, b]));
    }
}
