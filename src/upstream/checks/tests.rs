use super::*;
use crate::engine::diagnostic::Source;
use crate::engine::instance::Instance;
use crate::engine::locality::Place;
use crate::engine::route::Router;
use crate::engine::rules::parse_files;
use crate::engine::snapshot::{LiveSet, ServiceSnapshot, Snapshot};
use crate::engine::testing::instance;
use crate::observe::metrics::Settings;
use crate::observe::transitions::Moved;

const WEB: &str = "service: web\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n";

/// Checks over a table, and what moves them.
pub(super) struct Ground {
    pub(super) checks: Checks,
    table: Arc<ArcSwap<Table>>,
    pub(super) metrics: Arc<Metrics>,
    moved: tokio::sync::mpsc::UnboundedReceiver<Moved>,
    silence: watch::Sender<BTreeSet<Text>>,
    _publisher: watch::Sender<u64>,
}

pub(super) fn ground(rules: &[&str], services: Vec<(&str, Vec<Instance>)>) -> Ground {
    let sources: Vec<_> = rules.iter().enumerate().map(|(at, text)| Source::new(format!("{at}.yaml"), *text)).collect();
    let (set, problems) = parse_files(&sources);
    assert!(!problems.has_errors(), "{problems:?}");
    let router = Arc::new(Router::compile(&set).unwrap());
    let mut lives = LiveSet::default();
    let services = services.into_iter().map(|(name, instances)| {
        let instances = instances.into_iter().map(Arc::new).collect();
        ServiceSnapshot::build(name.into(), 1, instances, &mut lives, Millis(0))
    });
    let snapshot = Snapshot::new(services);
    let table = Table::build(1, snapshot, router, Place::default(), Millis(0)).unwrap();
    let table = Arc::new(ArcSwap::from_pointee(table));
    let (publisher, generation) = watch::channel(1);
    let (silence, stale) = watch::channel(BTreeSet::new());
    let (transitions, moved) = Transitions::channel();
    let metrics = Metrics::new(1, Settings::default());
    let (own, clock) = (Arc::clone(&metrics), Clock::start());
    let speech = Speech { trusts: Arc::default(), protocol_label: "proto".into(), kept: 64 };
    let checks = Checks::new(Arc::clone(&table), generation, stale, clock, transitions, own, speech);
    Ground { checks, table, metrics, moved, silence, _publisher: publisher }
}

/// A port at which nobody listens; while the socket lives nobody else is given it.
fn closed() -> (tokio::net::TcpSocket, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

async fn next(moved: &mut tokio::sync::mpsc::UnboundedReceiver<Moved>) -> Moved {
    tokio::time::timeout(Duration::from_secs(20), moved.recv()).await.expect("in time").expect("it runs")
}

#[tokio::test]
async fn a_service_that_the_catalog_is_silent_about_is_checked_until_it_speaks_again() {
    let (_closed, port) = closed();
    let mut ground = ground(&[WEB], vec![("web", vec![instance("web", "web-1", port, &[])])]);
    let live = Arc::clone(&ground.table.load().endpoint(0, 0).live);
    let running = tokio::spawn(ground.checks.run());

    ground.silence.send_replace(BTreeSet::from(["web".into()]));
    let failing = next(&mut ground.moved).await;
    assert_eq!(live.verdict(), Verdict::Failing);
    failing.endpoint.live.clear_dirty();

    ground.silence.send_replace(BTreeSet::new());
    let forgotten = next(&mut ground.moved).await;
    assert!(forgotten.transition.is_none());
    assert_eq!((live.verdict(), live.available()), (Verdict::Unknown, true));
    running.abort();
}

#[tokio::test]
async fn an_endpoint_whose_check_panicked_is_told_counted_and_checked_again() {
    let rules = format!("{WEB}check: {{tcp: true, fall: 1}}\n");
    let Ground { mut checks, metrics, .. } = ground(&[&rules], vec![("web", vec![instance("web", "web-1", 80, &[])])]);
    checks.follow_table();
    let (means, target) = checks.schedule.take_due(checks.clock.now(), |_| true).expect("it is due at once");
    let mut running = Running::at_most(1);
    running.begin((means, target), async { panic!("a fault of ours") });
    assert!(!running.has_room());
    let ended = running.next().await.expect("it has ended");
    assert!(running.has_room());
    let verdict = ended.0.1.endpoint.live.verdict();
    checks.ended(ended);
    assert!(checks.schedule.next(|_| true).is_some(), "it is planned again");
    assert_eq!(verdict, Verdict::Unknown, "a fault of ours says nothing of the instance");
    let told = metrics.render();
    assert!(told.contains("pointsman_panics_total{where=\"check\"} 1"), "{told}");
}

#[tokio::test]
async fn commands_that_hang_keep_no_other_check_waiting() {
    // More than all places together, and they come first.
    let slow = "service: slow\nhosts: [slow.test]\npools: {all: id exists}\nrules: [{name: all, to: [all]}]\n\
                check: {command: [/bin/sleep, \"600\"], timeout: 600s}\n";
    let web = format!("{WEB}check: {{tcp: true, interval: 100ms, fall: 2}}\n");
    let many = (0..AT_ONCE as u16 + 100).map(|n| instance("slow", &format!("slow-{n:03}"), 1_000 + n, &[])).collect();
    let (_closed, port) = closed();
    let one = vec![instance("web", "web-1", port, &[])];
    let mut ground = ground(&[slow, &web], vec![("slow", many), ("web", one)]);
    let running = tokio::spawn(ground.checks.run());
    let failing = next(&mut ground.moved).await;
    assert_eq!(&*failing.endpoint.instance.service, "web");
    running.abort();
}

#[test]
fn a_table_that_differs_in_health_alone_makes_no_other_schedule() {
    let ground = ground(&[WEB], vec![("web", vec![instance("web", "web-1", 80, &[])])]);
    let (table, mut checks) = (ground.table, ground.checks);
    checks.follow_table();
    let before = table.load_full();
    let (followed, _) = checks.followed.clone().expect("it has followed");
    assert!(followed.is_of(&before.with_health(2, &[Arc::clone(&before.endpoint(0, 0).live)], Millis(1))));
    let other = ServiceSnapshot::build("web".into(), 2, Vec::new(), &mut LiveSet::default(), Millis(1));
    assert!(!followed.is_of(&before.with_service(2, other, Millis(1)).0));

    // The catalog's silence is no part of a table.
    assert!(checks.schedule.is_empty());
    ground.silence.send_replace(BTreeSet::from(["web".into()]));
    checks.follow_table();
    assert!(!checks.schedule.is_empty());
}

#[tokio::test]
async fn an_answer_that_comes_after_the_check_was_taken_away_is_no_verdict() {
    let mut ground = ground(&[WEB], vec![("web", vec![instance("web", "web-1", 80, &[])])]);
    let checks = &mut ground.checks;
    ground.silence.send_replace(BTreeSet::from(["web".into()]));
    checks.follow_table();
    let (means, target) = checks.schedule.take_due(checks.clock.now(), |_| true).expect("it is due at once");
    ground.silence.send_replace(BTreeSet::new());
    checks.follow_table();
    let live = Arc::clone(&target.endpoint.live);
    for _ in 0..target.check.fall {
        checks.ended(((means, target.clone()), Ok((Err(CheckFailure::Text), On::Fresh, None))));
    }
    assert_eq!((live.verdict(), live.check_failure()), (Verdict::Unknown, None));
    assert!(checks.schedule.is_empty() && checks.schedule.next(|_| true).is_none());
    assert!(ground.moved.try_recv().is_err(), "nobody is told of anything");
}

#[tokio::test]
async fn a_check_that_could_not_be_made_here_is_no_verdict_and_is_made_again() {
    let rules = format!("{WEB}check: {{tcp: true, fall: 1}}\n");
    let Ground { mut checks, metrics, .. } = ground(&[&rules], vec![("web", vec![instance("web", "web-1", 80, &[])])]);
    checks.follow_table();
    let taken = checks.schedule.take_due(checks.clock.now(), |_| true).expect("it is due at once");
    let live = Arc::clone(&taken.1.endpoint.live);
    // EMFILE: this process has no descriptor left.
    let exhausted = CheckFailure::Connect(std::io::Error::from_raw_os_error(24));
    checks.ended((taken, Ok((Err(exhausted), On::Fresh, None))));
    assert_eq!((live.verdict(), live.check_failure()), (Verdict::Unknown, None));
    assert!(checks.schedule.next(|_| true).is_some());
    let told = metrics.render();
    assert!(told.contains("pointsman_checks_total{service=\"web\",result=\"unmade\"} 1"), "{told}");
}
