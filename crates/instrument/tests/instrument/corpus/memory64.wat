;; call write 4090L 7L
;; call write 65528L 7L
;; call write 65529L 7L
;; call write -1L 7L
;; call bulk 8192L 9000L
;; call bulk 60000L 9000L
;; call grow 1L
;; call grow 100L
;; call write 70000L 1L
(module
    (memory (export "memory") i64 1 3)
    (data (i64.const 10) "sixty-four")
    (func (export "write") (param i64 i64) (result i64)
        (i64.store (local.get 0) (local.get 1))
        (i64.load (local.get 0)))
    (func (export "bulk") (param i64 i64)
        (memory.fill (local.get 0) (i32.const 170) (local.get 1))
        (memory.copy (i64.const 0) (local.get 0) (i64.const 5)))
    (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0))))
