//! Pulling the shared file from under the host: cutting, punching, resealing,
//! or having the kernel zero it.

use lazaret_wall::Layer;

use crate::attack::{Attack, Guard, Value, numbers, values};

/// seccomp: a locked tenant has no descriptor of the file and no such call.
/// Behind it the seals, which hold whoever has a descriptor.
pub const STOPPED_BY: Guard = Guard::Layer(Layer::Seccomp);

const SIZE: Value = Value::Number(lazaret_wire::layout::SIZE as u64);
const PUNCH: u64 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u64;

const fn advise(name: &'static str, advice: i32) -> Attack {
    Attack::call(
        name,
        STOPPED_BY,
        libc::SYS_madvise,
        values([Value::Shared, SIZE, Value::Number(advice as u64)]),
    )
}

/// The attacks. Descriptors 0 to 3 are where the file could be.
pub const ATTACKS: &[Attack] = &[
    Attack::call(
        "truncate_0",
        STOPPED_BY,
        libc::SYS_ftruncate,
        numbers([0, 0]),
    ),
    Attack::call(
        "truncate_3",
        STOPPED_BY,
        libc::SYS_ftruncate,
        numbers([3, 0]),
    ),
    Attack::call(
        "truncate_by_name",
        STOPPED_BY,
        libc::SYS_truncate,
        values([Value::Memory]),
    ),
    Attack::call(
        "punch_3",
        STOPPED_BY,
        libc::SYS_fallocate,
        numbers([3, PUNCH, 0, 1 << 20]),
    ),
    Attack::call(
        "reseal_3",
        STOPPED_BY,
        libc::SYS_fcntl,
        numbers([3, libc::F_ADD_SEALS as u64, libc::F_SEAL_WRITE as u64]),
    ),
    Attack::call(
        "lock_3",
        STOPPED_BY,
        libc::SYS_fcntl,
        values([
            Value::Number(3),
            Value::Number(libc::F_SETLKW as u64),
            Value::Memory,
        ]),
    ),
    Attack::call(
        "synchronise",
        STOPPED_BY,
        libc::SYS_msync,
        values([
            Value::Shared,
            SIZE,
            Value::Number(libc::MS_INVALIDATE as u64),
        ]),
    ),
    Attack::call(
        "remap",
        STOPPED_BY,
        libc::SYS_mremap,
        values([Value::Shared, SIZE, Value::Number(4096)]),
    ),
    Attack::call(
        "remap_pages",
        STOPPED_BY,
        libc::SYS_remap_file_pages,
        values([Value::Shared, Value::Number(4096)]),
    ),
    Attack::call(
        "lock_pages",
        STOPPED_BY,
        libc::SYS_mlock,
        values([Value::Shared, SIZE]),
    ),
    Attack::call(
        "swap_pages",
        STOPPED_BY,
        libc::SYS_move_pages,
        values([Value::Number(0), Value::Number(1), Value::Memory]),
    ),
    advise("advise_remove", libc::MADV_REMOVE),
    advise("advise_free", libc::MADV_FREE),
    advise("advise_pageout", libc::MADV_PAGEOUT),
    advise("advise_cold", libc::MADV_COLD),
    advise("advise_huge", libc::MADV_HUGEPAGE),
    advise("advise_merge", libc::MADV_MERGEABLE),
    advise("advise_populate", libc::MADV_POPULATE_WRITE),
    advise("advise_poison", libc::MADV_HWPOISON),
    advise("advise_guard", 102),
];
