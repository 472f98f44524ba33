;; call get
;; call again 0
;; call again 1
;; call drop
;; call passive
(module
    (memory (export "memory") 1)
    (global $started (export "started") (mut i32) (i32.const 0))
    (data $a (i32.const 4) "\2a\00\00\00")
    (data $p "passive")
    (func $start (global.set $started (i32.load (i32.const 4))))
    (func (export "get") (result i32) (global.get $started))
    (func (export "again") (param i32)
        (memory.init $a (i32.const 100) (i32.const 0) (local.get 0)))
    (func (export "drop") (data.drop $a))
    (func (export "passive")
        (memory.init $p (i32.const 4094) (i32.const 0) (i32.const 7))
        (data.drop $p))
    (start $start))
