//! How much memory there is: the cgroup's limit, else what the system has available.

use std::fs::read_to_string;
use std::path::Path;

/// The part of it that the account may hold, in percent. HARDENING.md: the rest is for what the account does not see.
const PART: u64 = 70;

/// The limit for `limits.memory: auto`, in bytes; 0: nothing is known, so there is none.
#[must_use]
pub fn automatic() -> u64 {
    let read = |path: &Path| read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let there_is = of_cgroups(&groups, read).or_else(|| available(&read(Path::new("/proc/meminfo"))?));
    there_is.map_or(0, |bytes| bytes / 100 * PART)
}

/// The least limit of the process's cgroup and of those around it; `None`: none has one. `groups`: /proc/self/cgroup.
fn of_cgroups(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // In a container the path is often that of the host, and the root is what counts.
        Path::new(path.trim_start_matches('/'))
            .ancestors()
            .filter_map(|below| read(&Path::new(root).join(below).join(file)))
            .filter_map(|text| text.trim().parse::<u64>().ok())
            .collect()
    });
    // The old interface writes a number near the largest for none.
    limits.min().filter(|bytes| *bytes < 1 << 60)
}

/// `MemAvailable` of /proc/meminfo.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_around_the_process_counts() {
        let files = |path: &Path| match path.to_str()? {
            "/sys/fs/cgroup/system.slice/pointsman.service/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/system.slice/memory.max" => Some("268435456\n".to_owned()),
            "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes" => Some("9223372036854771712\n".to_owned()),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes" => Some("536870912\n".to_owned()),
            _ => None,
        };
        assert_eq!(of_cgroups("0::/system.slice/pointsman.service\n", files), Some(256 << 20));
        assert_eq!(of_cgroups("12:cpu,cpuacct:/x\n7:memory:/docker/abc\n0::/\n", files), Some(512 << 20));
        assert_eq!(of_cgroups("7:memory:/docker/abc\n", |path| files(path).filter(|text| text.len() > 12)), None);
        assert_eq!(of_cgroups("", files), None);
    }

    #[test]
    fn what_is_available_is_read_from_meminfo() {
        let text = "MemTotal:       32768 kB\nMemFree: 1 kB\nMemAvailable:   16384 kB\n";
        assert_eq!(available(text), Some(16 << 20));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
    }
}
