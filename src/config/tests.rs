use super::*;
use crate::engine::paths::{Paths, Spellings};

const WHOLE_FILE: &str = r#"
listen:
  - address: 0.0.0.0:8080
  - address: 0.0.0.0:8443
    tls: {cert: /etc/pointsman/cert.pem, key: /etc/pointsman/key.pem}
    half_close: true
    h2c: false
admin: {address: 127.0.0.1:9900, token_file: /run/secrets/admin}
catalog:
  consul: {address: http://127.0.0.1:8501, token_file: /run/secrets/consul, hold: {max: 0}, dc: [a, b]}
rules: rules/
region: eu
zone: eu-a
workers: auto
limits: {head: 10s, tls_handshake: 10s, body_idle: 30s, body: 300s, body_rate: 16KiB, replay_size: 64KiB, write_idle: 30s, keep_alive: 60s, connection_age: 1h, head_size: 64KiB, target_size: 8KiB, fields: 100, connections: auto, memory: auto, backlog: 4096, unsent: 128KiB, h2_streams: 100, h2_window: 64KiB, h2_connection_window: 1MiB, h2_resets: 50}
paths: {refuse: [encoded_slash, parameter], merge_slashes: false, forward: normalised}
upstream: {idle: auto, max_connections: 0, protocol_label: proto, head_size: 64KiB, h2_streams: 100}
drain: {delay: 5s, timeout: 30s}
trusted_proxies: [10.0.0.0/8]
request_id: true
via: false
upgrades: [websocket]
underscores: false
error_header: true
host_header: client
access_log: {path: stdout, sample: 12.5%, redact: [cookie.session]}
label_keys: {version: [version, ver], region: [region, dc-region]}
debug_headers: false
debug_token: {key_file: /run/secrets/debug}
"#;

fn load_all(file: &str, flags: Flags, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pointsman.yaml");
    std::fs::write(&path, file).unwrap();
    let flags = Flags { config: Some(path.clone()), ..flags };
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&flags, environment).map_err(|out| out.render().replace(&path.display().to_string(), "p.yaml"))
}

fn origin_of(loaded: &Loaded, key: &str) -> String {
    let text = loaded.report.render();
    let line =
        text.lines().find(|line| line.starts_with(&format!("{key}: "))).unwrap_or_else(|| panic!("{key}: {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_documented_file_is_read_whole() {
    let Settings {
        listen,
        admin,
        catalog,
        limits,
        paths,
        access_log,
        label_keys,
        trusted_proxies,
        drain,
        workers,
        debug_token,
        ..
    } = load_all(WHOLE_FILE, Flags::default(), &[]).unwrap().settings;
    assert_eq!(listen.len(), 2);
    assert!(listen[0].tls.is_none() && listen[1].half_close);
    assert!(listen[0].h2c && !listen[1].h2c);
    assert_eq!(listen[1].tls.as_ref().unwrap().certificates[0].key, "/etc/pointsman/key.pem");
    assert_eq!(admin.token_file.as_deref(), Some("/run/secrets/admin"));
    let CatalogSource::Consul(consul) = catalog.source else { panic!("consul") };
    assert_eq!(consul.address, ["http://127.0.0.1:8501"]);
    assert_eq!((consul.hold.max, consul.hold.acl, consul.transport.wait), (None, None, 55_000));
    assert_eq!(consul.dc, ["a", "b"]);
    assert_eq!(debug_token.unwrap().key_file, "/run/secrets/debug");
    assert_eq!((limits.head, limits.head_size, limits.connections), (10_000, 65_536, Auto::Auto));
    assert_eq!(paths.refuse, Spellings::ENCODED_SLASH.and(Spellings::PARAMETER));
    assert!(!paths.merge_slashes && paths.forward_normalised);
    assert_eq!(access_log.unwrap().sample, 125_000);
    assert_eq!(label_keys[0], ("version".to_owned(), vec!["version".to_owned(), "ver".to_owned()]));
    assert_eq!(trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!((drain.delay, drain.timeout, workers), (5_000, 30_000, Auto::Auto));
}

#[test]
fn nothing_at_all_is_the_defaults() {
    let loaded = load(&Flags::default(), []).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.paths, Paths::default());
    assert_eq!(settings.listen[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin.address.unwrap().to_string(), "127.0.0.1:9900");
    assert!(settings.access_log.is_none() && settings.request_id && !settings.via && settings.error_header);
    let CatalogSource::Consul(consul) = &settings.catalog.source else { panic!("consul") };
    assert_eq!((consul.address.as_slice(), consul.hold.max), (&["http://127.0.0.1:8500".to_owned()][..], Some(60_000)));
    assert!(loaded.report.render().lines().all(|line| line.ends_with("# default")));
    assert_eq!(load_all("", Flags::default(), &[]).unwrap().settings, *settings);
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_consuls_variables() {
    let file = "region: file\nzone: file\nadmin: {address: 127.0.0.1:1}\nlimits: {head: 1s, body_idle: 2s}\ncatalog: {consul: {namespace: file}}\n";
    let flags = Flags { region: Some("flag".into()), listen: vec!["127.0.0.1:0".into()], ..Flags::default() };
    let environment = [
        ("POINTSMAN_REGION", "variable"),
        ("POINTSMAN_ZONE", "variable"),
        ("POINTSMAN_LIMITS__HEAD", "5s"),
        ("POINTSMAN_ACCESS_LOG", "{path: stderr}"),
        ("POINTSMAN_LOG", "debug"),
        ("CONSUL_HTTP_ADDR", "10.0.0.1:8500"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_SSL_VERIFY", "0"),
        ("CONSUL_HTTP_TOKEN", "hunter2"),
        ("CONSUL_NAMESPACE", "variable"),
    ];
    let loaded = load_all(file, flags, &environment).unwrap();
    let settings = &loaded.settings;
    assert_eq!((settings.region.as_deref(), settings.zone.as_deref()), (Some("flag"), Some("variable")));
    assert_eq!((settings.limits.head, settings.limits.body_idle), (5_000, 2_000));
    assert_eq!(settings.access_log.as_ref().unwrap().path, "stderr");
    let CatalogSource::Consul(consul) = &settings.catalog.source else { panic!("consul") };
    assert_eq!((consul.address[0].as_str(), consul.tls.verify), ("https://10.0.0.1:8500", false));
    assert_eq!(consul.namespace.as_deref(), Some("file"));
    for line in [
        "region: flag # --region",
        "zone: variable # POINTSMAN_ZONE",
        "limits.head: 5s # POINTSMAN_LIMITS__HEAD",
        "limits.body_idle: 2s # file",
        "catalog.consul.address: https://10.0.0.1:8500 # CONSUL_HTTP_ADDR",
        "catalog.consul.token: <secret> # CONSUL_HTTP_TOKEN",
        "listen[0]: 127.0.0.1:0 # --listen",
        "drain.delay: 5s # default",
    ] {
        assert_eq!(origin_of(&loaded, line.split(": ").next().unwrap()), line);
    }
    assert!(!loaded.report.render().contains("hunter2") && !format!("{settings:?}").contains("hunter2"));
}

#[test]
fn the_stronger_layer_names_the_catalog() {
    let flags = Flags { catalog: Some("c.yaml".into()), ..Flags::default() };
    let settings = load_all("catalog: {consul: {address: http://c:1}}", flags, &[]).unwrap().settings;
    assert_eq!(settings.catalog.source, CatalogSource::File("c.yaml".into()));
    let settings =
        load_all("catalog: {file: c.yaml}", Flags::default(), &[("CONSUL_HTTP_ADDR", "c:1")]).unwrap().settings;
    assert_eq!(settings.catalog.source, CatalogSource::File("c.yaml".into()));
    let both = load_all("catalog: {file: c.yaml, consul: {dc: x}}", Flags::default(), &[]).unwrap_err();
    assert!(both.contains("both `consul` and `file`"), "{both}");
}

#[test]
fn every_problem_of_every_layer_is_reported_at_its_place() {
    let file = "limts: {head: 10s}\nlimits: {head: 10, fields: 0, headd: 1s}\nlisten: [{tls: {cert: c}}, nonsense]\nvia: perhaps\ncatalog: {consul: {addres: x, hold: []}}\n";
    let flags = Flags { workers: Some("many".into()), ..Flags::default() };
    let text = load_all(file, flags, &[("POINTSMAN_REGON", "eu"), ("POINTSMAN_DRAIN__DELAY", "soon")]).unwrap_err();
    insta::assert_snapshot!(text);
}

#[test]
fn the_guard_and_the_shadow_are_read_shown_and_checked() {
    let file = "guard: {mode: enforce, max_moved: 2.5%, max_unrouted: 3}\nshadow: {sample: 10%, log: s.jsonl, queue: 7, redact: [cookie.uid]}\n";
    let flags = Flags { shadow_rules: Some("next/".into()), ..Flags::default() };
    let loaded = load_all(file, flags, &[("POINTSMAN_GUARD__MAX_UNROUTED", "4")]).unwrap();
    let guard = Guard { mode: GuardMode::Enforce, max_moved: 25_000, max_unrouted: 4 };
    assert_eq!(loaded.settings.guard, guard);
    let shadow = loaded.settings.shadow.as_ref().unwrap();
    assert_eq!((shadow.rules.as_str(), shadow.sample, shadow.queue), ("next/", 100_000, 7));
    assert_eq!((shadow.log.as_deref(), shadow.redact.as_slice()), (Some("s.jsonl"), &["cookie.uid".to_owned()][..]));
    for line in [
        "guard.mode: enforce # file",
        "guard.max_moved: 2.5% # file",
        "guard.max_unrouted: 4 # POINTSMAN_GUARD__MAX_UNROUTED",
        "shadow.rules: next/ # --shadow-rules",
        "shadow.sample: 10% # file",
        "shadow.log: s.jsonl # file",
    ] {
        assert_eq!(origin_of(&loaded, line.split(": ").next().unwrap()), line);
    }

    let defaults = load_all("", Flags::default(), &[]).unwrap().settings;
    assert_eq!(defaults.guard, Guard { mode: GuardMode::Warn, max_moved: 300_000, max_unrouted: 0 });
    assert_eq!(defaults.shadow, None, "without rules there is no shadow");

    for (wrong, told) in [
        ("guard: {max_move: 5%}", "max_moved"),
        ("guard: {max_moved: 5}", "guard.max_moved"),
        ("guard: {max_moved: 101%}", "guard.max_moved"),
        ("guard: {max_unrouted: -1}", "guard.max_unrouted"),
        ("guard: {mode: refuse}", "enforce"),
        ("paths: {refuse: [semicolon]}", "parameter"),
        ("shadow: {rules: next/, sampel: 5%}", "sample"),
        ("shadow: {rules: next/, sample: half}", "shadow.sample"),
        ("shadow: {rules: next/, queue: 0}", "shadow.queue"),
        ("shadow: {rules: next/, redact: [cookie]}", "shadow.redact"),
    ] {
        let error = load_all(wrong, Flags::default(), &[]).unwrap_err();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}

#[test]
fn an_unreadable_or_broken_file_says_so() {
    let flags = Flags { config: Some("/nowhere/p.yaml".into()), ..Flags::default() };
    let text = load(&flags, []).unwrap_err().render();
    assert!(text.contains("E900") && text.contains("/nowhere/p.yaml"), "{text}");
    assert!(load_all("a: [", Flags::default(), &[]).unwrap_err().contains("E000"));
    assert!(load_all("[a]", Flags::default(), &[]).unwrap_err().contains("E002"));
}

#[test]
fn protocols_that_carry_requests_are_no_upgrades() {
    let upgrades =
        |list: &str| load_all(&format!("catalog: {{file: c.yaml}}\nupgrades: {list}\n"), Flags::default(), &[]);
    assert_eq!(upgrades("[WebSocket, tailscale-control-protocol]").unwrap().settings.upgrades.len(), 2);
    assert_eq!(upgrades("[]").unwrap().settings.upgrades, Vec::<String>::new());
    assert_eq!(upgrades("[WebSocket]").unwrap().settings.upgrades, ["websocket"]);
    for wrong in ["[h2c]", "[websocket, H2C]", "[TLS/1.0]", "[\"two words\"]", "[\"\"]"] {
        assert!(upgrades(wrong).is_err(), "{wrong}");
    }
}
