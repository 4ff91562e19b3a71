//! An instance's labels from what Consul holds (CATALOGS.md M7). Pure.

use std::collections::BTreeMap;

use super::Settings;
use crate::engine::label::Labels;

/// `Meta` as it is; then tags `key=value`, bare tags as `tag.<tag>`; `Meta` wins. The fleet's own spellings fill what is
/// missing. A bare tag that looks like a version (`v1`, `v1.2`) fills `version`. Node meta is `node.meta.<key>`.
#[must_use]
pub fn map(
    meta: &BTreeMap<String, String>,
    tags: &[String],
    node_meta: &BTreeMap<String, String>,
    settings: &Settings,
) -> Labels {
    let mut labels: BTreeMap<String, String> = meta.clone();
    for tag in tags {
        match tag.split_once(settings.tag_separator.as_str()) {
            Some((key, value)) if !key.is_empty() && !settings.tag_separator.is_empty() => {
                labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
            _ => {
                labels.entry(format!("tag.{tag}")).or_insert_with(|| "true".to_owned());
            }
        }
    }
    for (key, value) in node_meta.iter().filter(|(key, _)| !key.starts_with("consul-")) {
        labels.entry(format!("node.meta.{key}")).or_insert_with(|| value.clone());
    }
    let mut renamed = Vec::new();
    for (key, spellings) in &settings.label_keys {
        let listed = spellings.contains(key);
        if !listed && labels.contains_key(key) {
            continue;
        }
        if let Some(value) = spellings.iter().find_map(|spelling| labels.get(spelling)) {
            renamed.push((key.clone(), value.clone()));
        }
    }
    labels.extend(renamed);
    if !labels.contains_key("version")
        && let Some(version) = tags.iter().find(|tag| looks_like_version(tag))
    {
        labels.insert("version".to_owned(), version.clone());
    }
    labels.into_iter().collect()
}

/// `v` and a digit, then letters, digits, dots, dashes, pluses.
fn looks_like_version(tag: &str) -> bool {
    let mut rest = tag.strip_prefix('v').unwrap_or("").chars();
    rest.next().is_some_and(|c| c.is_ascii_digit())
        && rest.all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(meta: &[(&str, &str)], tags: &[&str], keys: &[(&str, &[&str])]) -> String {
        let pairs = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings {
            label_keys: keys
                .iter()
                .map(|(key, all)| ((*key).to_owned(), all.iter().map(|one| (*one).to_owned()).collect()))
                .collect(),
            ..Settings::default()
        };
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let labels = map(&pairs(meta), &tags, &BTreeMap::new(), &settings);
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn meta_wins_over_tags_and_tags_are_read_at_the_first_separator() {
        assert_eq!(mapped(&[("env", "prod")], &["env=gray", "q=a=b", "http"], &[]), "env=prod q=a=b tag.http=true");
        assert_eq!(mapped(&[], &["=odd"], &[]), "tag.=odd=true");
    }

    #[test]
    fn a_bare_version_tag_fills_the_version_that_nobody_gave() {
        assert_eq!(mapped(&[], &["api", "v1"], &[]), "tag.api=true tag.v1=true version=v1");
        assert_eq!(mapped(&[("version", "2")], &["v1"], &[]), "tag.v1=true version=2");
        assert_eq!(mapped(&[], &["version=3", "v1"], &[]), "tag.v1=true version=3");
        assert_eq!(mapped(&[], &["vip"], &[]), "tag.vip=true");
    }

    #[test]
    fn the_fleet_s_own_spellings_fill_the_usual_keys() {
        let keys: &[(&str, &[&str])] = &[("version", &["ver", "app-version"])];
        assert_eq!(
            mapped(&[("app-version", "1"), ("ver", "2")], &["v9"], keys),
            "app-version=1 tag.v9=true ver=2 version=2"
        );
        assert_eq!(mapped(&[("version", "7"), ("ver", "2")], &[], keys), "ver=2 version=7");
        let listed: &[(&str, &[&str])] = &[("version", &["ver", "version"])];
        assert_eq!(mapped(&[("version", "7"), ("ver", "2")], &[], listed), "ver=2 version=2");
        let dotted: &[(&str, &[&str])] = &[("app.kubernetes.io/version", &["k8s-version"])];
        assert_eq!(mapped(&[("k8s-version", "5")], &[], dotted), "app.kubernetes.io/version=5 k8s-version=5");
    }
}
