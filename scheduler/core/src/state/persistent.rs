//! Persistent collections as bytes: like serde's own maps and sequences.
//!
//! The collections' own implementation believes the length that it reads and allocates for it before it has seen one
//! element, so a few bytes of damage would end the process.

/// `OrdMap`.
pub(super) mod map {
    use std::fmt;
    use std::marker::PhantomData;

    use imbl::OrdMap;
    use serde::de::{MapAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::state) fn serialize<K, V, S>(
        map: &OrdMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error>
    where
        K: Serialize + Ord,
        V: Serialize,
        S: Serializer,
    {
        serializer.collect_map(map)
    }

    pub(in crate::state) fn deserialize<'de, K, V, D>(
        deserializer: D,
    ) -> Result<OrdMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord + Clone,
        V: Deserialize<'de> + Clone,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_map(Entries(PhantomData))
    }

    struct Entries<K, V>(PhantomData<(K, V)>);

    impl<'de, K, V> Visitor<'de> for Entries<K, V>
    where
        K: Deserialize<'de> + Ord + Clone,
        V: Deserialize<'de> + Clone,
    {
        type Value = OrdMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = OrdMap::new();
            while let Some((key, value)) = access.next_entry()? {
                map.insert(key, value);
            }
            Ok(map)
        }
    }
}

/// `Vector`.
pub(super) mod vector {
    use std::fmt;
    use std::marker::PhantomData;

    use imbl::Vector;
    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::state) fn serialize<T, S>(
        vector: &Vector<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error>
    where
        T: Serialize + Clone,
        S: Serializer,
    {
        serializer.collect_seq(vector)
    }

    pub(in crate::state) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vector<T>, D::Error>
    where
        T: Deserialize<'de> + Clone,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_seq(Elements(PhantomData))
    }

    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Clone> Visitor<'de> for Elements<T> {
        type Value = Vector<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut vector = Vector::new();
            while let Some(element) = access.next_element()? {
                vector.push_back(element);
            }
            Ok(vector)
        }
    }
}
