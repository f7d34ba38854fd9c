//! Every target over its seeds, and over what a small seeded mutator makes of it.

use quorate_base::Rng;
use std::path::Path;

const TARGETS: [(&str, fn(&[u8])); 3] = [
    ("wal_identity", quorate_fuzz::wal_identity),
    ("wal_records", quorate_fuzz::wal_records),
    ("wal_recovery", quorate_fuzz::wal_recovery),
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has seeds");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(seed: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..rng.between(1, 8) {
        let at = rng.below(data.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 if at < data.len() => data[at] = rng.next_u64() as u8,
            1 => data.insert(at, [0, 1, 0x7f, 0xc0, 0xff][rng.below(5) as usize]),
            2 if at < data.len() => drop(data.remove(at)),
            _ => {
                let copy: Vec<u8> =
                    data[at..].iter().take(rng.below(64) as usize).copied().collect();
                data.extend(copy);
            }
        }
    }
    data
}

#[test]
fn no_target_fails_on_its_seeds_or_near_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        for seed in &seeds {
            target(seed);
        }
        let mut rng = Rng::new(1);
        for _ in 0..1_500 {
            let mut data = mutate(&seeds[rng.below(seeds.len() as u64) as usize], &mut rng);
            if rng.below(4) == 0 {
                data = (0..rng.below(600)).map(|_| rng.next_u64() as u8).collect();
            }
            target(&data);
        }
    }
}
