;; A tenant that takes as much as it can of one thing at a time.
(module
  (import "ic0" "msg_reply" (func $msg_reply))
  (import "ic0" "debug_print" (func $debug_print (param i32 i32)))
  (memory (export "memory") 1)
  (global $round (mut i32) (i32.const 0))

  ;; Grows to so many pages of 64 KiB, if it has fewer.
  (func $grow (param $pages i32)
    (if (i32.lt_u (memory.size) (local.get $pages))
      (then (drop (memory.grow (i32.sub (local.get $pages) (memory.size)))))))

  ;; Writes to every page of 4 KiB in [64 KiB, to).
  (func $touch (param $to i32)
    (local $at i32)
    (local.set $at (i32.const 65536))
    (global.set $round (i32.add (global.get $round) (i32.const 1)))
    (loop $next
      (i32.store (local.get $at) (global.get $round))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $to)))))

  (func (export "canister_query nothing") (call $msg_reply))

  ;; Thirty million rounds of nothing.
  (func (export "canister_query spin")
    (local $left i32)
    (local.set $left (i32.const 30000000))
    (loop $again
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))
    (call $msg_reply))

  ;; 128 MiB that were not there before.
  (func (export "canister_query fill")
    (call $grow (i32.const 2048))
    (call $touch (i32.const 134217728))
    (call $msg_reply))

  ;; 16 MiB to put on the disk.
  (func (export "canister_update write")
    (call $grow (i32.const 257))
    (call $touch (i32.const 16842752))
    (call $msg_reply))

  ;; A thousand lines of a kilobyte for the log.
  (func (export "canister_update log")
    (local $left i32)
    (local.set $left (i32.const 1000))
    (loop $again
      (call $debug_print (i32.const 0) (i32.const 1024))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))
    (call $msg_reply)))
