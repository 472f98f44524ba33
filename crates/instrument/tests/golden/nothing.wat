(module $control
  (type (;0;) (func (param i32) (result i32)))
  (type (;1;) (func (param i32) (result i32 i32)))
  (type (;2;) (func (result i32 i32)))
  (export "main" (func $main))
  (func $leaf (;0;) (type 0) (param i32) (result i32)
    local.get 0
    i32.const 1
    i32.add
  )
  (func $main (;1;) (type 1) (param i32) (result i32 i32)
    block ;; label = @1
      i32.const 1
      drop
    end
    loop ;; label = @1
      local.get 0
      call $leaf
      local.set 0
      local.get 0
      i32.const 10
      i32.lt_s
      br_if 0 (;@1;)
    end
    local.get 0
    if ;; label = @1
      i32.const 1
      i32.const 2
      return
    end
    i32.const 3
    i32.const 4
  )
  (func $tail (;2;) (type 2) (result i32 i32)
    i32.const 0
    call $leaf
    drop
    i32.const 5
    return_call $main
  )
)
