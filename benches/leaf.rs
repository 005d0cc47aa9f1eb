//! The certificate that an agent sees: minted for a new name, and found in the cache.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use criterion::{BatchSize, Criterion};
use keybearer::{
    host::Host,
    tls::{self, Authority, Leaves, Metrics},
};
use prometheus::Registry;

/// Fewer than the names asked for, so that the cache does not grow with the length of the run.
const CAPACITY: usize = 1024;

fn main() -> Result<()> {
    tls::init_crypto();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let metrics = Metrics::register(&Registry::new())?;
    let leaves = Leaves::new(Arc::new(Authority::open(None)?), CAPACITY, &metrics);
    let known = Host::parse("api.bench.test")?;
    leaves.for_host(&known)?;

    let mut group = criterion.benchmark_group("leaf");
    group.bench_function("cached", |bencher| bencher.iter(|| leaves.for_host(&known)));
    let mut names = (0_u64..).filter_map(|number| Host::parse(&format!("api{number}.bench.test")).ok());
    group.bench_function("minted", |bencher| {
        bencher.iter_batched(
            || names.next(),
            |host| host.map(|host| leaves.for_host(&host)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
