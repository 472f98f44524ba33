;; call call 0
;; call call 1
;; call call 2
;; call call 9
;; call set 2
;; call call 2
;; call grow 3
;; call fill 3 2
;; call copy 0 2 1
;; call call 0
;; call init 1 1
;; call call 1
;; call drop
;; call init 1 1
(module
    (memory (export "memory") 1)
    (type $t (func (result i32)))
    (table $t 3 10 funcref)
    (elem (i32.const 0) $one $two)
    (elem $e func $two $three)
    (func $one (result i32) (i32.const 1))
    (func $two (result i32) (i32.const 2))
    (func $three (result i32) (i32.const 3))
    (func (export "call") (param i32) (result i32) (call_indirect (type $t) (local.get 0)))
    (func (export "set") (param i32) (table.set $t (local.get 0) (ref.func $three)))
    (func (export "grow") (param i32) (result i32)
        (table.grow $t (ref.null func) (local.get 0)))
    (func (export "fill") (param i32 i32)
        (table.fill $t (local.get 0) (ref.func $two) (local.get 1)))
    (func (export "copy") (param i32 i32 i32)
        (table.copy $t $t (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32)
        (table.init $t $e (local.get 0) (i32.const 1) (local.get 1)))
    (func (export "drop") (elem.drop $e)))
