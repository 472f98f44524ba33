;; A heap of {pages} pages of 64 KiB, to measure what an update costs that writes to some of its
;; pages of 4 KiB in some order.
;;
;; Arguments and answers are little endian, without Candid.
;;   update write (count: u64, stride: u64, order: u64) -> (u64)
;;       adds one to the byte at 2048 + i * stride for each i < count, and answers count. Order 0 is
;;       ascending, 1 descending, 2 scattered, for which count must be a power of two. The argument
;;       lies in the page at 0, which is one of those that are written.
;;   query  read -> (u64)   the eight bytes at 2048
(module
  (import "ic0" "msg_arg_data_size" (func $msg_arg_data_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $msg_arg_data_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $msg_reply_data_append (param i32 i32)))
  (import "ic0" "msg_reply" (func $msg_reply))
  (memory (export "memory") {pages} {pages})

  (func $reply (param $value i64)
    (i64.store (i32.const 0) (local.get $value))
    (call $msg_reply_data_append (i32.const 0) (i32.const 8))
    (call $msg_reply))

  ;; A permutation of the numbers below count, a power of two: multiplying by an odd number and
  ;; folding the upper half into the lower one are permutations both.
  (func $scatter (param $i i32) (param $count i32) (result i32)
    (local $mask i32)
    (local.set $mask (i32.sub (local.get $count) (i32.const 1)))
    (local.set $i (i32.and (local.get $mask)
      (i32.mul (local.get $i) (i32.const 0x9e3779b1))))
    (local.set $i (i32.xor (local.get $i) (i32.shr_u (local.get $i)
      (i32.shr_u (i32.add (i32.ctz (local.get $count)) (i32.const 1)) (i32.const 1)))))
    (i32.and (local.get $mask) (i32.mul (local.get $i) (i32.const 0x85ebca6b))))

  (func (export "canister_update write")
    (local $count i32) (local $stride i32) (local $order i32)
    (local $i i32) (local $index i32) (local $at i32)
    (if (i32.ne (call $msg_arg_data_size) (i32.const 24)) (then unreachable))
    (call $msg_arg_data_copy (i32.const 0) (i32.const 0) (i32.const 24))
    (local.set $count (i32.load (i32.const 0)))
    (local.set $stride (i32.load (i32.const 8)))
    (local.set $order (i32.load (i32.const 16)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $index (local.get $i))
        (if (i32.eq (local.get $order) (i32.const 1))
          (then (local.set $index
            (i32.sub (i32.sub (local.get $count) (i32.const 1)) (local.get $i)))))
        (if (i32.eq (local.get $order) (i32.const 2))
          (then (local.set $index (call $scatter (local.get $i) (local.get $count)))))
        (local.set $at
          (i32.add (i32.const 2048) (i32.mul (local.get $index) (local.get $stride))))
        (i32.store8 (local.get $at)
          (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $reply (i64.extend_i32_u (local.get $count))))

  (func (export "canister_query read")
    (call $reply (i64.load (i32.const 2048)))))
