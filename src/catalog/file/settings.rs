//! Settings of the file source.

use std::path::PathBuf;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// `catalog: {file: PATH}` or `catalog: {file: {path: PATH}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The catalog file (YAML or JSON, CLI.md). Required.
    pub path: PathBuf,
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Settings;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the path of a catalog file, or {path: PATH}")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Settings, E> {
                Ok(Settings { path: path.into() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut path: Option<PathBuf> = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "path" => path = Some(map.next_value()?),
                        other => return Err(Error::unknown_field(other, &["path"])),
                    }
                }
                path.map(|path| Settings { path }).ok_or_else(|| Error::missing_field("path"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_path_and_a_map_say_the_same() {
        let bare: Settings = serde_json::from_str(r#""c.yaml""#).unwrap();
        let map: Settings = serde_json::from_str(r#"{"path": "c.yaml"}"#).unwrap();
        assert_eq!(bare, map);
        assert!(serde_json::from_str::<Settings>(r#"{"pth": "c.yaml"}"#).is_err());
    }
}
